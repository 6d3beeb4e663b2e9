/** What a simulated run comes to: the form that all scenarios have. */
import type { ScenarioName } from "./abouts.ts"
import type { Violation } from "./checkers/violation.ts"

export interface Verdict {
  readonly seed: number
  /** Null when every promise was kept. */
  readonly violation: Violation | null
  /** What the seed decided. */
  readonly options: object
  readonly events: number
  readonly simulatedMs: number
  /** Of what was done to it, and of what it did. */
  readonly counts: Readonly<Record<string, number>>
  /** Which of the counts are of what was done to it. */
  readonly injected: ReadonlyArray<string>
  /** Of charts: `state <role>`, `move <from> <to>`, `input <role> <input>`, `fact <fact>`. */
  readonly coverage: ReadonlyArray<string>
  /** What is no count: of several runs the least and the most are told. */
  readonly figures?: Readonly<Record<string, number>>
  /** Over what was decided, in order, and when it ended: equal for equal seeds. */
  readonly hash: string
}

/** What a simulation does not know of itself. Its clock and memory are those of the machine that runs it. */
export interface Outside {
  /** How many hosts are wanted; null for what the seed draws. */
  readonly hosts: number | null
  readonly nowMs: () => number
  readonly memoryMib: () => number
  readonly sha256: (text: string) => string
}

export type FailureClass = "crash" | "liveness" | "safety"

/** The code itself gave up, the group did not come on, or a promise was broken. */
export const classOf = (promised: string): FailureClass =>
  promised === "crash" || promised === "liveness" ? promised : "safety"

export interface Event {
  readonly atMs: number
  readonly fault: { readonly kind: string }
}

/** A run as values: with these options, and with this befalling it, it is always the same; also with some left out. */
export interface Plan {
  readonly seed: number
  readonly options: object
  readonly faults: ReadonlyArray<Event>
}

export interface Scenario {
  readonly name: ScenarioName
  readonly run: (seed: number, outside?: Outside) => Verdict
  /** It may be told how large it is to be, and needs the memory for that. */
  readonly isLarge?: boolean
  /** Where runs can be written down, and made smaller. */
  readonly script?: Script
}

export interface Script {
  /** What a seed draws. */
  readonly options: (seed: number) => object
  /** A seed's run, and what befell it. */
  readonly plan: (seed: number) => { readonly plan: Plan; readonly verdict: Verdict }
  readonly run: (plan: Plan) => Verdict
  /** Null for what is none of this scenario's faults. */
  readonly decode: (fault: unknown) => Event["fault"] | null
  /** Simpler options, one change each, the best first. */
  readonly simpler: (options: object) => ReadonlyArray<object>
}
