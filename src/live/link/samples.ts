/**
 * What the heartbeats and transfers of one link say about it. Latency is one way: half of the round trip of a
 * heartbeat, which takes the way there and back to be alike. Over TCP nothing is lost for good, so loss counts
 * the heartbeats that were still unanswered when the next was due.
 */
import type { LinkSample } from "../../kernel/ports/link.ts"

/** Heartbeats, and transfers, that a sample looks back on. */
const window = 20
/** A transfer shorter than this says more about its start than about the link. */
const transferBytesMin = 64 * 1024

export class LinkSamples {
  readonly #latenciesMs: Array<number> = []
  readonly #answered: Array<boolean> = []
  readonly #ratesBitsPerSecond: Array<number> = []

  answered(roundTripMs: number): void {
    push(this.#latenciesMs, roundTripMs / 2)
    push(this.#answered, true)
  }

  missed(): void {
    push(this.#answered, false)
  }

  transferred(bytes: number, durationMs: number): void {
    if (bytes < transferBytesMin || durationMs <= 0) return
    push(this.#ratesBitsPerSecond, (bytes * 8 * 1000) / durationMs)
  }

  sample(): LinkSample {
    const latencies = this.#latenciesMs
    const steps = latencies
      .slice(1)
      .map((latency, index) => Math.abs(latency - (latencies[index] ?? latency)))
    const misses = this.#answered.filter((answered) => !answered).length
    return {
      latencyMs: mean(latencies),
      jitterMs: mean(steps),
      lossPercent: this.#answered.length === 0 ? 0 : (100 * misses) / this.#answered.length,
      bandwidthBitsPerSecond:
        this.#ratesBitsPerSecond.length === 0 ? null : Math.max(...this.#ratesBitsPerSecond)
    }
  }
}

const mean = (values: ReadonlyArray<number>) =>
  values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length

function push<A>(values: Array<A>, value: A): void {
  values.push(value)
  if (values.length > window) values.shift()
}
