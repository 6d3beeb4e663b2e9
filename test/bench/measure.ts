/** What all benches share: figures with their spread, rounds in which subject and yardstick take turns, folders. */
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export type Size = "smoke" | "full"

export interface Options {
  readonly size: Size
  /** Draws the work: the same seed and size give the same work, whose hash is `result`. */
  readonly seed: number
}

/** Of one measure over all rounds. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface Figure {
  readonly name: string
  readonly unit: string
  readonly value: Spread
  /** What it is compared with in the same rounds, in the same unit; null where there is no yardstick. */
  readonly yardstick: { readonly name: string; readonly value: Spread; readonly share: Spread } | null
  /** More that was measured, as text: `p50 0.21 ms`. */
  readonly note: string
  /** Hash of what was done and came out. */
  readonly result: string
}

/** One round: the subject's value, its yardstick's, and the hash of what came out. */
export interface Round {
  readonly value: number
  readonly yardstick?: number
  readonly result: string
}

export function spread(values: ReadonlyArray<number>): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (index: number) => sorted[index] ?? Number.NaN
  const middle = Math.floor(sorted.length / 2)
  const median = sorted.length % 2 === 1 ? at(middle) : (at(middle - 1) + at(middle)) / 2
  return { median, min: at(0), max: at(sorted.length - 1) }
}

/** Shares are taken round by round, so that what disturbs a round disturbs both sides of it. Throws when rounds differ. */
export function figure(
  name: string,
  unit: string,
  rounds: ReadonlyArray<Round>,
  more: { readonly yardstick?: string; readonly note?: string } = {}
): Figure {
  const results = new Set(rounds.map((round) => round.result))
  if (results.size !== 1)
    throw new Error(`${name}: the rounds did different work: ${[...results].join(", ")}`)
  const compared = rounds.flatMap(({ value, yardstick }) =>
    yardstick === undefined ? [] : [{ yardstick, share: value / yardstick }]
  )
  return {
    name,
    unit,
    value: spread(rounds.map((round) => round.value)),
    yardstick:
      more.yardstick === undefined
        ? null
        : {
            name: more.yardstick,
            value: spread(compared.map((one) => one.yardstick)),
            share: spread(compared.map((one) => one.share))
          },
    note: more.note ?? "",
    result: [...results][0] as string
  }
}

/** `count` times `once`, one after the other. */
export async function repeat<A>(count: number, once: () => Promise<A> | A): Promise<ReadonlyArray<A>> {
  const all: Array<A> = []
  for (let n = 0; n < count; n++) all.push(await once())
  return all
}

/** Sixteen digits of the SHA-256 over these lines. */
export function hashOf(lines: Iterable<string>): string {
  const hash = createHash("sha256")
  for (const line of lines) hash.update(`${line}\n`)
  return hash.digest("hex").slice(0, 16)
}

/** A folder of its own, removed at the end. */
export async function inFolder<A>(use: (folder: string) => Promise<A> | A): Promise<A> {
  const folder = mkdtempSync(join(tmpdir(), "novacron-bench-"))
  try {
    return await use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
