/** What a node remembers of its present start, and what it asks of the process that starts. */
import type { Phase, PhaseTime } from "../../events/node.ts"
import type { Request } from "../../events/requests.ts"
import type { Parts } from "./decide.ts"

export interface NodeContext {
  readonly start: string
  readonly limitMs: number
  readonly parts: Parts
  readonly phase: Phase | null
  /** Milliseconds since the Unix epoch. */
  readonly beganMs: number
  readonly phaseBeganMs: number
  readonly phaseTimes: ReadonlyArray<PhaseTime>
}

export const none: NodeContext = {
  start: "",
  limitMs: 0,
  parts: {},
  phase: null,
  beganMs: 0,
  phaseBeganMs: 0,
  phaseTimes: []
}

const limit = "limit"
const retryPrefix = "retry-"

export const isLimit = (timer: string): boolean => timer === limit
/** The component that this timer lets try again; null when it is another timer. */
export const retriedBy = (timer: string): string | null =>
  timer.startsWith(retryPrefix) ? timer.slice(retryPrefix.length) : null

export const startLimit = ({ limitMs }: NodeContext): Request => ({
  port: "timer",
  op: "start",
  name: limit,
  afterMs: limitMs
})
export const stopLimit = (): Request => ({ port: "timer", op: "stop", name: limit })

export const retryLater = (component: string, afterMs: number): Request => ({
  port: "timer",
  op: "start",
  name: `${retryPrefix}${component}`,
  afterMs
})

export const initialise = (
  { start, parts }: NodeContext,
  components: ReadonlyArray<string>
): ReadonlyArray<Request> =>
  components.map((component) => ({
    port: "component",
    op: "initialise",
    start,
    component,
    attempt: parts[component]?.attempt ?? 1
  }))

export const announce = ({ start, phaseTimes }: NodeContext): Request => ({
  port: "component",
  op: "announce",
  start,
  phases: phaseTimes
})

export const stop = (
  { start }: NodeContext,
  why: { readonly component: string | null; readonly phase: Phase | null; readonly reason: string }
): Request => ({ port: "component", op: "stop", start, ...why })
