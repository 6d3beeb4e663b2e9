/** The week of a large fleet as a scenario: how large is what was asked for, or what the seed draws. */
import type { Outside, Scenario, Verdict } from "../verdict.ts"
import { makeRandom } from "../world/random.ts"
import { scaleOf } from "./options.ts"
import { noInstruments, run } from "./run.ts"

const drawnHosts = [100, 150, 200, 300, 500] as const
const injected = ["hostFailures", "rackFailures", "siteFailures"]

function optionsOf(seed: number, wanted: number | null) {
  const random = makeRandom(seed).split("size")
  return scaleOf(wanted ?? (drawnHosts[random.int(0, drawnHosts.length - 1)] as number))
}

const percent = (share: number): number => Math.round(share * 1000) / 10

function runScale(seed: number, outside?: Outside): Verdict {
  const options = optionsOf(seed, outside?.hosts ?? null)
  const { nowMs, sha256 } = outside ?? noInstruments
  const beganMs = nowMs()
  const verdict = run(seed, options, { ...noInstruments, nowMs, sha256 })
  const seconds = (nowMs() - beganMs) / 1000
  const { violation, events, simulatedMs, counts, coverage, hash, packed, atTheEnd } = verdict
  const measured = {
    "decisions a second": Math.round((counts["decisions"] ?? 0) / seconds),
    "memory of the process, MiB": outside?.memoryMib() ?? 0
  }
  return {
    ...{ seed, violation, options, events, simulatedMs, counts, injected, coverage, hash },
    figures: {
      hosts: options.hosts,
      machines: options.machines,
      "hosts in use, packed": packed.usedHosts,
      "memory promised of these, %": percent(packed.ofUsedHosts),
      "memory promised at the end, %": percent(atTheEnd.ofUsedHosts),
      ...(outside === undefined ? {} : measured)
    }
  }
}

export const scale: Scenario = { name: "scale", isLarge: true, run: runScale }
