/**
 * Which network mode a link is in, from the mean of its last samples.
 *
 *     datacenter   latency < 10 ms and bandwidth >= 1 Gbit/s
 *     internet     latency > 50 ms or bandwidth < 1 Gbit/s
 *     hybrid       between
 *
 * A mode is left only when the mean is past its limit by the margin, so that a link that lies on a limit stays
 * where it is instead of going to and fro.
 */
import type { Mode, ModeSample } from "../../events/link.ts"

/** Samples that are looked back on. */
export const windowSamples = 10
/** Fewer say too little to leave a mode for. */
export const samplesMin = 3
/** How far past a limit the mean must be to leave the present mode, as a share of the limit. */
export const margin = 0.2

const datacenterLatencyMs = 10
const internetLatencyMs = 50
const fastBitsPerSecond = 1e9

export interface Means {
  readonly latencyMs: number
  readonly bandwidthBitsPerSecond: number
}

/** The window with this sample as its last. */
export const withSample = (
  samples: ReadonlyArray<ModeSample>,
  sample: ModeSample
): ReadonlyArray<ModeSample> => [...samples.slice(1 - windowSamples), sample]

export function meansOf(samples: ReadonlyArray<ModeSample>): Means {
  const mean = (of: (sample: ModeSample) => number) =>
    samples.reduce((sum, sample) => sum + of(sample) / samples.length, 0)
  return {
    latencyMs: mean(({ latencyMs }) => latencyMs),
    bandwidthBitsPerSecond: mean(({ bandwidthBitsPerSecond }) => bandwidthBitsPerSecond)
  }
}

/** The mode that the table names. */
export function classify({ latencyMs, bandwidthBitsPerSecond }: Means): Mode {
  if (latencyMs > internetLatencyMs || bandwidthBitsPerSecond < fastBitsPerSecond) return "internet"
  return latencyMs < datacenterLatencyMs ? "datacenter" : "hybrid"
}

/** The mode after these samples, for a link that is in `current`. */
export function chooseMode(samples: ReadonlyArray<ModeSample>, current: Mode): Mode {
  if (samples.length < samplesMin) return current
  const means = meansOf(samples)
  const next = classify(means)
  return next === current || staysWithin(means, current) ? current : next
}

/** Whether the means are still within the mode's limits, each moved outwards by the margin. */
function staysWithin({ latencyMs, bandwidthBitsPerSecond }: Means, mode: Mode): boolean {
  const slowest = fastBitsPerSecond * (1 - margin)
  switch (mode) {
    case "datacenter":
      return latencyMs < datacenterLatencyMs * (1 + margin) && bandwidthBitsPerSecond >= slowest
    case "hybrid":
      return (
        latencyMs >= datacenterLatencyMs * (1 - margin) &&
        latencyMs <= internetLatencyMs * (1 + margin) &&
        bandwidthBitsPerSecond >= slowest
      )
    case "internet":
      return (
        latencyMs > internetLatencyMs * (1 - margin) ||
        bandwidthBitsPerSecond < fastBitsPerSecond * (1 + margin)
      )
  }
}

/** Why a link went to the mode it went to, with the numbers that decided. */
export function reasonFor(samples: ReadonlyArray<ModeSample>): string {
  const { latencyMs, bandwidthBitsPerSecond } = meansOf(samples)
  const gigabits = (bandwidthBitsPerSecond / 1e9).toPrecision(3)
  return `mean of the last ${samples.length} samples: latency ${latencyMs.toPrecision(3)} ms, bandwidth ${gigabits} Gbit/s`
}
