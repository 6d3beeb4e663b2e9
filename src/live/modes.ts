/**
 * Measures the links of the node with the kernel and tells each link's mode actor, `mode/<peer>`, which chooses the
 * network mode (SPEC §1). A forced mode of the configuration is told at the start, its absence too.
 */
import { Clock, Effect } from "effect"
import type { Mode } from "../events/link.ts"
import type { Message } from "../events/envelope.ts"
import { Kernel } from "../kernel/kernel.ts"
import { Link } from "../kernel/ports/link.ts"
import type { Peer } from "../kernel/ports/link.ts"
import type { Metrics } from "./metrics.ts"

export interface ModeOptions {
  readonly node: string
  readonly intervalMs: number
  readonly detects: boolean
  readonly forced: Mode | null
}

/** Enough to see a gigabit, little enough not to be felt. */
const probeBytes = 256 * 1024
/** The first samples come quickly: a mode is chosen from at least three. */
const firstIntervalMs = 2000
const firstSamples = 3

/** Runs until interrupted. */
export const measureLinks = Effect.fn("measureLinks")(function* (
  options: ModeOptions,
  metrics: Metrics["Service"]
) {
  const kernel = yield* Kernel
  const link = yield* Link
  const told = new Map<string, number>()

  const say = (peer: string, message: Message, what: string) =>
    Effect.gen(function* () {
      const id = `${what}/${peer}/${yield* Clock.currentTimeMillis}`
      const principal = { kind: "node", name: options.node } as const
      yield* kernel.submit({ stream: `mode/${peer}`, message, id, correlation: id, principal })
      const state = yield* kernel.state(`mode/${peer}`)
      metrics.mode((state.chart.context as { mode: Mode }).mode)
    }).pipe(
      // Forcing what is forced, and releasing what is not, are refused and need no word.
      Effect.catchTag("CommandRefused", () => Effect.void),
      Effect.catch((error) => Effect.logWarning(`the mode of the link to ${peer} was not recorded`, error))
    )

  const measure = Effect.fnUntraced(function* (peer: Peer) {
    if (!told.has(peer.node)) {
      yield* say(
        peer.node,
        options.forced === null ? { type: "mode.release" } : { type: "mode.force", mode: options.forced },
        "mode"
      )
    }
    told.set(peer.node, (told.get(peer.node) ?? 0) + 1)
    if (!options.detects) return
    const bits = yield* Effect.option(link.probe(peer.node, probeBytes))
    const { latencyMs, jitterMs, lossPercent } = peer.sample ?? {}
    if (bits._tag === "None" || latencyMs == null || lossPercent === undefined) return
    const sample = { latencyMs, bandwidthBitsPerSecond: bits.value, lossPercent, jitterMs: jitterMs ?? 0 }
    yield* say(peer.node, { type: "mode.sample", ...sample }, "sample")
  })

  for (;;) {
    const peers = (yield* link.peers).filter((peer) => peer.state === "connected")
    yield* Effect.forEach(peers, measure, { discard: true })
    const early = peers.some((peer) => (told.get(peer.node) ?? 0) < firstSamples) || peers.length === 0
    yield* Effect.sleep(Math.min(options.intervalMs, early ? firstIntervalMs : options.intervalMs))
  }
})
