/**
 * What a node tells of itself with its membership: what its host has, and how its link to the nodes with a kernel is. Only what
 * differs by much is worth another word to all.
 */
import { Clock, Effect } from "effect"
import type { PeerDescription } from "../../events/peer.ts"
import type { Mode, ModeSample } from "../../events/link.ts"
import { Link } from "../../kernel/ports/link.ts"
import type { Peer } from "../../kernel/ports/link.ts"

export interface DescribingOptions {
  readonly capacity: PeerDescription["capacity"]
  /** Whose links are measured: the first of them that there is one to. */
  readonly kernels: () => ReadonlyArray<string>
  /** False: nothing is measured. */
  readonly detects: boolean
  readonly intervalMs: number
  /** The mode after these samples, for a link that is in the second. */
  readonly modeOf: (samples: ReadonlyArray<ModeSample>, mode: Mode) => Mode
  readonly forced: Mode | null
  readonly describe: (description: PeerDescription) => void
}

const probeBytes = 256 * 1024
const windowSamples = 10
const firstIntervalMs = 2000
const firstSamples = 3
/** A sample that differs by more is told, but not again and again. */
const factorTold = 2
const toldEveryMs = 300_000
/** Below this a difference is noise. */
const latencyMsFloor = 1
const percentFloor = 1

/** Whether the second says something else than the first, by the factor in one of its values. */
export function isOtherSample(told: ModeSample | null, now: ModeSample | null): boolean {
  if (told === null || now === null) return told !== now
  const differs = (a: number, b: number, floor: number) =>
    Math.max(a, b, floor) > factorTold * Math.max(Math.min(a, b), floor)
  return (
    differs(told.latencyMs, now.latencyMs, latencyMsFloor) ||
    differs(told.jitterMs, now.jitterMs, latencyMsFloor) ||
    differs(told.lossPercent, now.lossPercent, percentFloor) ||
    differs(told.bandwidthBitsPerSecond, now.bandwidthBitsPerSecond, 1)
  )
}

/** Runs until interrupted. */
export const describeNode = Effect.fn("gossip.describeNode")(function* (options: DescribingOptions) {
  const { capacity, kernels, detects, intervalMs, modeOf, forced, describe } = options
  const link = yield* Link
  let samples: ReadonlyArray<ModeSample> = []
  let told: PeerDescription = { capacity, mode: forced, sample: null }
  let toldMs = Number.NEGATIVE_INFINITY
  describe(told)
  if (!detects) return yield* Effect.never

  const measured = Effect.fnUntraced(function* (peer: Peer) {
    const bits = yield* Effect.option(link.probe(peer.node, probeBytes))
    const { latencyMs, jitterMs, lossPercent } = peer.sample ?? {}
    if (bits._tag === "None" || latencyMs == null || lossPercent === undefined) return null
    return { latencyMs, bandwidthBitsPerSecond: bits.value, lossPercent, jitterMs: jitterMs ?? 0 }
  })
  for (;;) {
    const isEarly = samples.length < firstSamples
    yield* Effect.sleep(isEarly ? Math.min(firstIntervalMs, intervalMs) : intervalMs)
    const peers = yield* link.peers
    const peer = kernels()
      .map((name) => peers.find(({ node, state }) => node === name && state === "connected"))
      .find((one) => one !== undefined)
    const sample = peer === undefined ? null : yield* measured(peer)
    if (sample === null) continue
    samples = [...samples.slice(1 - windowSamples), sample]
    if (samples.length < firstSamples) continue
    const mode = forced ?? modeOf(samples, told.mode ?? "hybrid")
    const nowMs = yield* Clock.currentTimeMillis
    if (mode === told.mode && (nowMs - toldMs < toldEveryMs || !isOtherSample(told.sample, sample))) continue
    told = { capacity, mode, sample }
    toldMs = nowMs
    describe(told)
  }
})
