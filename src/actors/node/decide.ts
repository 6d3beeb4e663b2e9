/** The order of a start: which components may begin, when a phase is over, and what a failure means. */
import { Phase } from "../../events/node.ts"
import type { Plan } from "../../events/node.ts"

export type Standing = "waiting" | "starting" | "retrying" | "up" | "left-out"

export interface Part extends Plan {
  readonly standing: Standing
  /** The latest attempt; 0 before the first. */
  readonly attempt: number
}

/** By name. */
export type Parts = Readonly<Record<string, Part>>

export const phases: ReadonlyArray<Phase> = Phase.literals

/** Pauses before the second, third and fourth attempt at a degraded component. */
const pausesMs = [1000, 2000, 4000] as const

/** The pause before the next attempt; null when this was the last. */
export const pauseMs = ({ level }: Plan, attempt: number): number | null =>
  level === "degraded" ? (pausesMs[attempt - 1] ?? null) : null

export const partsOf = (components: ReadonlyArray<Plan>): Parts =>
  Object.fromEntries(components.map((one) => [one.name, { ...one, standing: "waiting", attempt: 0 }]))

const isOver = (part: Part | undefined) => part?.standing === "up" || part?.standing === "left-out"

/** Those of the phase that wait for nothing but their turn, in the plan's order. */
export const able = (parts: Parts, phase: Phase): ReadonlyArray<string> =>
  Object.values(parts)
    .filter((part) => part.phase === phase && part.standing === "waiting")
    .filter((part) => part.needs.every((need) => isOver(parts[need])))
    .map(({ name }) => name)

export const isPhaseOver = (parts: Parts, phase: Phase): boolean =>
  Object.values(parts).every((part) => part.phase !== phase || isOver(part))

/** The first phase after this one, or at all, that has components; null when there is none. */
export function phaseAfter(parts: Parts, phase: Phase | null): Phase | null {
  const later = phases.slice(phase === null ? 0 : phases.indexOf(phase) + 1)
  return later.find((one) => Object.values(parts).some((part) => part.phase === one)) ?? null
}

export const withStanding = (parts: Parts, name: string, standing: Standing): Parts => {
  const part = parts[name]
  return part === undefined ? parts : { ...parts, [name]: { ...part, standing } }
}

/** Each of them at its next attempt. */
export const begun = (parts: Parts, names: ReadonlyArray<string>): Parts => ({
  ...parts,
  ...Object.fromEntries(
    names.flatMap((name) => {
      const part = parts[name]
      return part ? [[name, { ...part, standing: "starting" as const, attempt: part.attempt + 1 }]] : []
    })
  )
})

/**
 * Why these components can't be ordered; null when they can (Kahn's algorithm, CACM 5(11), 1962). A need in a later
 * phase is a problem, and so is a cycle.
 */
export function orderProblem(components: ReadonlyArray<Plan>): string | null {
  const byName = new Map(components.map((one) => [one.name, one]))
  if (byName.size !== components.length) return "two components have one name"
  for (const one of components) {
    for (const need of one.needs) {
      const other = byName.get(need)
      if (!other) return `${one.name} needs ${need}, which does not exist`
      if (phases.indexOf(other.phase) > phases.indexOf(one.phase)) {
        return `${one.name} (${one.phase}) needs ${need} of ${other.phase}`
      }
    }
  }
  let left = components
  for (;;) {
    const names = new Set(left.map(({ name }) => name))
    const next = left.filter((one) => one.needs.some((need) => names.has(need)))
    if (next.length === 0) return null
    if (next.length === left.length) return `a cycle among ${left.map(({ name }) => name).join(", ")}`
    left = next
  }
}
