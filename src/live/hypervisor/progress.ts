/** How a migration stands, computed from what QEMU tells (`query-migrate`, `query-jobs`). Pure. */
import type { Progress } from "../../events/requests.ts"

/** The fields used of QEMU's MigrationInfo; sizes in bytes, times in ms, `mbps` in Mbit/s. */
export interface MigrationInfo {
  readonly status: string
  readonly totalMs: number | null
  readonly downtimeMs: number | null
  readonly throttlePercent: number
  readonly error: string | null
  readonly ram: {
    readonly transferredBytes: number
    readonly remainingBytes: number
    readonly totalBytes: number
    readonly dirtyBytesPerSecond: number
    readonly mbps: number
    readonly iteration: number
  } | null
}

/** Sums over all mirrored disks. */
export interface MirrorInfo {
  readonly doneBytes: number
  readonly totalBytes: number
}

type Fields = Readonly<Record<string, unknown>>

const fields = (value: unknown): Fields =>
  typeof value === "object" && value !== null ? (value as Fields) : {}
const number = (value: unknown): number => (typeof value === "number" && Number.isFinite(value) ? value : 0)
const maybe = (value: unknown): number | null => (typeof value === "number" ? value : null)

/** Read QEMU's answer; what is missing in it is 0 or null. */
export const migrationInfo = (answer: unknown): MigrationInfo => {
  const top = fields(answer)
  const ram = fields(top["ram"])
  return {
    status: typeof top["status"] === "string" ? top["status"] : "none",
    totalMs: maybe(top["total-time"]),
    downtimeMs: maybe(top["downtime"]),
    throttlePercent: number(top["cpu-throttle-percentage"]),
    error: typeof top["error-desc"] === "string" ? top["error-desc"] : null,
    ram:
      top["ram"] === undefined
        ? null
        : {
            transferredBytes: number(ram["transferred"]),
            remainingBytes: number(ram["remaining"]),
            totalBytes: number(ram["total"]),
            dirtyBytesPerSecond: number(ram["dirty-pages-rate"]) * number(ram["page-size"]),
            mbps: number(ram["mbps"]),
            iteration: number(ram["dirty-sync-count"])
          }
  }
}

/** Until the guest runs at the destination something is left to do. */
const PERCENT_BEFORE_END = 99

const phaseOf = (status: string): Progress["phase"] => {
  if (status === "active") return "pre-copy"
  if (status === "pre-switchover" || status === "device") return "switch-over"
  if (status.startsWith("postcopy")) return "post-copy"
  return status === "completed" ? "switch-over" : "connecting"
}

/** How long it will take at least, and at most as the dirty rate is now; null when that never ends. */
const remainingTime = (
  remainingBytes: number,
  rate: number,
  dirtyRate: number,
  limitMs: number
): Progress["remainingMs"] => {
  if (rate <= 0) return null
  const low = (remainingBytes / rate) * 1000
  const high = dirtyRate >= rate ? limitMs : (remainingBytes / (rate - dirtyRate)) * 1000
  return { low: Math.round(low), high: Math.round(Math.max(low, Math.min(high, limitMs))) }
}

/** The stage of moving disks, before memory; memory is known by its size only. */
export const mirrorProgress = (
  mirror: MirrorInfo,
  rateBytesPerSecond: number,
  memoryBytes: number,
  limitMs: number,
  previousPercent: number
): Progress => {
  const totalBytes = mirror.totalBytes + memoryBytes
  const remainingBytes = Math.max(0, totalBytes - mirror.doneBytes)
  const percent = totalBytes === 0 ? 0 : (100 * mirror.doneBytes) / totalBytes
  return {
    phase: "mirroring",
    percent: Math.max(previousPercent, Math.min(PERCENT_BEFORE_END, percent)),
    transferredBytes: mirror.doneBytes,
    remainingBytes,
    totalBytes,
    rateBytesPerSecond,
    dirtyBytesPerSecond: 0,
    iteration: 0,
    throttlePercent: 0,
    remainingMs: remainingTime(remainingBytes, rateBytesPerSecond, 0, limitMs)
  }
}

/** The stage of moving memory. After the first pass what is dirtied again counts as almost done. */
export const memoryProgress = (
  info: MigrationInfo,
  mirror: MirrorInfo,
  limitMs: number,
  previous: Progress | null
): Progress => {
  const ram = info.ram
  const totalBytes = mirror.totalBytes + (ram?.totalBytes ?? 0)
  const remainingBytes = ram?.remainingBytes ?? 0
  const rate = ((ram?.mbps ?? 0) * 1e6) / 8
  const percent = totalBytes === 0 ? 0 : (100 * (totalBytes - remainingBytes)) / totalBytes
  return {
    // What ended in post-copy was not switched over again.
    phase: info.status === "completed" && previous !== null ? previous.phase : phaseOf(info.status),
    percent: Math.max(
      previous?.percent ?? 0,
      info.status === "completed" ? 100 : Math.min(PERCENT_BEFORE_END, ram === null ? 0 : percent)
    ),
    transferredBytes: mirror.doneBytes + (ram?.transferredBytes ?? 0),
    remainingBytes,
    totalBytes,
    rateBytesPerSecond: rate,
    dirtyBytesPerSecond: ram?.dirtyBytesPerSecond ?? 0,
    iteration: ram?.iteration ?? 0,
    throttlePercent: info.throttlePercent,
    remainingMs: ram === null ? null : remainingTime(remainingBytes, rate, ram.dirtyBytesPerSecond, limitMs)
  }
}
