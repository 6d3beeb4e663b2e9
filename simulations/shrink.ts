/**
 * The least that still breaks the same promise: fewer kinds of faults, simpler options, then fewer and fewer of the faults
 * (delta debugging; Zeller and Hildebrandt, 2002). Nothing is drawn, so the same run always ends as the same.
 */
import type { Event, Plan, Script, Verdict } from "./verdict.ts"

export interface Shrunk {
  readonly plan: Plan
  readonly verdict: Verdict
  /** So many runs it took. */
  readonly runs: number
}

/** Runs after which it is good enough. */
const runs_max = 600

class Shrinker {
  readonly #script: Script
  readonly #promised: string
  plan: Plan
  verdict: Verdict
  runs = 0
  readonly #most: number

  constructor(script: Script, plan: Plan, verdict: Verdict, promised: string, most: number) {
    this.#script = script
    this.#most = most
    this.plan = plan
    this.verdict = verdict
    this.#promised = promised
  }

  get isSpent(): boolean {
    return this.runs >= this.#most
  }

  /** Whether it still breaks the same promise; then it is taken. */
  try(plan: Plan): boolean {
    if (this.isSpent) return false
    this.runs++
    const verdict = this.#script.run(plan)
    if (verdict.violation?.promised !== this.#promised) return false
    this.plan = plan
    this.verdict = verdict
    return true
  }

  /** What comes after the end says nothing. */
  cutEnd(): void {
    const { simulatedMs } = this.verdict
    const faults = this.plan.faults.filter(({ atMs }) => atMs <= simulatedMs)
    if (faults.length < this.plan.faults.length) this.try({ ...this.plan, faults })
  }

  leaveOutKinds(): void {
    for (const kind of new Set(this.plan.faults.map(({ fault }) => fault.kind)))
      this.try({ ...this.plan, faults: this.plan.faults.filter(({ fault }) => fault.kind !== kind) })
  }

  simplify(): void {
    for (let at = 0; at < this.#script.simpler(this.plan.options).length;) {
      const options = this.#script.simpler(this.plan.options)[at]
      if (options === undefined || !this.try({ ...this.plan, options })) at++
      this.cutEnd()
      if (this.isSpent) return
    }
  }

  /** Larger parts first, then smaller ones, down to each alone. */
  leaveOutFaults(): void {
    let size = Math.max(1, this.plan.faults.length >> 1)
    for (;;) {
      let isLess = false
      for (let from = 0; from < this.plan.faults.length;) {
        const faults: ReadonlyArray<Event> = this.plan.faults.toSpliced(from, size)
        if (this.try({ ...this.plan, faults })) isLess = true
        else from += size
        if (this.isSpent) return
      }
      if (size === 1 && !isLess) return
      size = Math.max(1, size >> 1)
    }
  }
}

/** Null when the run, written down and run again, breaks another promise or none. */
export function shrink(script: Script, seed: number, most = runs_max): Shrunk | null {
  const { plan, verdict } = script.plan(seed)
  if (verdict.violation === null) return null
  const shrinker = new Shrinker(script, plan, verdict, verdict.violation.promised, most)
  if (!shrinker.try(plan)) return null
  shrinker.cutEnd()
  for (let before = Number.POSITIVE_INFINITY; ;) {
    shrinker.leaveOutKinds()
    shrinker.leaveOutFaults()
    shrinker.simplify()
    const now = shrinker.plan.faults.length + JSON.stringify(shrinker.plan.options).length
    if (now >= before || shrinker.isSpent) break
    before = now
  }
  return { plan: shrinker.plan, verdict: shrinker.verdict, runs: shrinker.runs }
}
