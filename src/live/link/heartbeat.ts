/** Says whether the other side is still there, how far away it is, and on request how much fits through. */
import { Clock, Deferred, Effect } from "effect"
import { LinkError } from "../../kernel/ports/link.ts"
import { encodeFrame, frameType } from "./frames.ts"
import type { Agreement } from "./negotiation.ts"
import type { LinkSamples } from "./samples.ts"
import type { Wire } from "./wire.ts"

export interface HeartbeatOptions {
  readonly heartbeatMs: number
  /** So many heartbeats in a row without an answer end the link. */
  readonly heartbeatMissesMax: number
}

export const probeFeature = "probe"
const probeBytesMax = 8 * 1024 * 1024
const probeFrameBytes = 32 * 1024
const probeTimeoutMs = 30_000
/** With one alone a process that stood still would take its own lateness for the other's. */
const looks = 2

export class Heartbeat {
  readonly #wire: Wire
  readonly #samples: LinkSamples
  readonly #options: HeartbeatOptions
  /** Sequence number of each unanswered ping and what its answer is for. Bounded by the misses allowed. */
  readonly #unanswered = new Map<number, (atMs: number) => void>()
  #sequence = 0
  #misses = 0

  constructor(wire: Wire, samples: LinkSamples, options: HeartbeatOptions) {
    this.#wire = wire
    this.#samples = samples
    this.#options = options
  }

  ping(id: number): void {
    this.#wire.sendNow(encodeFrame(frameType.pong, id))
  }

  pong(id: number): void {
    this.#misses = 0
    const answered = this.#unanswered.get(id)
    // Answers come in order: what was asked before this one is answered or never will be.
    for (const earlier of this.#unanswered.keys()) {
      if (earlier <= id) this.#unanswered.delete(earlier)
    }
    answered?.(performance.now())
  }

  /** Runs until the link ends. */
  run(certificateEndsMs: number): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      while (this.#wire.end === null) {
        let waiting = true
        const sentMs = performance.now()
        const id = this.#ask((atMs) => {
          if (waiting) this.#samples.answered(atMs - sentMs)
        })
        yield* Effect.sleep(this.#options.heartbeatMs)
        waiting = false
        if (this.#unanswered.has(id)) this.#miss()
        if ((yield* Clock.currentTimeMillis) >= certificateEndsMs) {
          this.#wire.destroy("refused", "the peer's certificate has ended")
        }
      }
    })
  }

  /** Two pings, one after the other, each given a heartbeat's time: unanswered they end the link. Whether one was answered. */
  look(): Effect.Effect<boolean> {
    return Effect.gen({ self: this }, function* () {
      for (let tries = 0; tries < looks && this.#wire.end === null; tries++) {
        const answered = Deferred.makeUnsafe<boolean>()
        this.#ask(() => Deferred.doneUnsafe(answered, Effect.succeed(true)))
        const waited = Deferred.await(answered).pipe(
          Effect.raceFirst(Effect.as(Deferred.await(this.#wire.closed), false)),
          Effect.timeoutOrElse({ duration: this.#options.heartbeatMs, orElse: () => Effect.succeed(false) })
        )
        if (yield* waited) return true
      }
      if (this.#wire.end === null) this.#wire.destroy("lost", "no answer when it was looked at")
      return false
    })
  }

  /** Send octets that are thrown away there, then a ping; its answer says when they had all arrived. */
  probe(bytes: number, agreement: Agreement): Effect.Effect<number, LinkError> {
    return Effect.gen({ self: this }, function* () {
      if (!agreement.features.includes(probeFeature) || bytes < 1 || bytes > probeBytesMax) {
        const reason = `a probe takes the feature ${probeFeature} and 1 to ${probeBytesMax} octets`
        return yield* this.#error("refused", reason)
      }
      const arrived = Deferred.makeUnsafe<number>()
      const piece = Buffer.alloc(Math.min(probeFrameBytes, agreement.frameBytesMax - 5))
      const startMs = performance.now()
      for (let left = bytes; left > 0; left -= piece.length) {
        yield* this.#wire.send(
          encodeFrame(frameType.probe, 0, piece.subarray(0, Math.min(left, piece.length)))
        )
      }
      this.#ask((atMs) => Deferred.doneUnsafe(arrived, Effect.succeed(atMs)))
      const endMs = yield* Deferred.await(arrived).pipe(
        Effect.raceFirst(Effect.flatMap(Deferred.await(this.#wire.closed), (end) => Effect.fail(end)))
      )
      const latencyMs = this.#samples.sample().latencyMs ?? 0
      // The way of the last octet there and of the answer back is not the link's rate.
      const durationMs = Math.max(endMs - startMs - 2 * latencyMs, (endMs - startMs) / 10)
      this.#samples.transferred(bytes, durationMs)
      return (bytes * 8 * 1000) / durationMs
    }).pipe(
      Effect.timeoutOrElse({
        duration: probeTimeoutMs,
        orElse: () => Effect.fail(this.#error("timeout", `the probe took longer than ${probeTimeoutMs} ms`))
      })
    )
  }

  #ask(answered: (atMs: number) => void): number {
    this.#sequence = this.#sequence === 0xffff_ffff ? 1 : this.#sequence + 1
    this.#unanswered.set(this.#sequence, answered)
    this.#wire.sendNow(encodeFrame(frameType.ping, this.#sequence))
    return this.#sequence
  }

  #miss(): void {
    this.#samples.missed()
    this.#misses += 1
    if (this.#misses >= this.#options.heartbeatMissesMax) {
      this.#wire.destroy("lost", `${this.#misses} heartbeats without an answer`)
    }
  }

  #error(code: LinkError["code"], reason: string): LinkError {
    return new LinkError({ node: this.#wire.peer, code, reason })
  }
}
