/** Durations as people write them, `500ms`, `30s`, `5m`, `2h`; milliseconds inside. */
import { Schema, SchemaTransformation } from "effect"

const unitsMs = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const pattern = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)$/

/** Milliseconds, or null when the text is no duration. */
export function parseDuration(text: string): number | null {
  const parts = pattern.exec(text)
  if (parts === null) return null
  return Math.round(Number(parts[1]) * unitsMs[parts[2] as keyof typeof unitsMs])
}

/** The shortest exact text: 30000 → `30s`. */
export function formatDuration(milliseconds: number): string {
  for (const unit of ["d", "h", "m", "s"] as const) {
    if (milliseconds > 0 && milliseconds % unitsMs[unit] === 0)
      return `${milliseconds / unitsMs[unit]}${unit}`
  }
  return `${milliseconds}ms`
}

/** A duration between two others, both included, in milliseconds. */
export const Duration = (minimumMs: number, maximumMs: number) => {
  const expected = `a duration from ${formatDuration(minimumMs)} to ${formatDuration(maximumMs)}, like 500ms, 30s or 5m`
  return Schema.String.check(
    Schema.makeFilter(
      (text: string) => {
        const milliseconds = parseDuration(text)
        return milliseconds !== null && milliseconds >= minimumMs && milliseconds <= maximumMs
      },
      { expected }
    )
  ).pipe(
    Schema.decodeTo(
      Schema.Number,
      SchemaTransformation.transform({
        decode: (text) => parseDuration(text) ?? Number.NaN,
        encode: formatDuration
      })
    )
  )
}
