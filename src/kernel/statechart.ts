/**
 * The kernel's one door to XState: decide (input → facts), evolve (fact → next state and requests), and what a
 * state allows. Nothing else in the kernel knows what a chart is made of.
 */
import { createActor, initialTransition } from "xstate"
import type { ActorScope, AnyMachineSnapshot, AnyStateMachine } from "xstate"
import type { Message } from "../events/envelope.ts"
import type { Request } from "../events/requests.ts"
import type { ActorKind, Stamp } from "./actor.ts"

export type ChartState = AnyMachineSnapshot

const initials = new WeakMap<AnyStateMachine, ChartState>()

/** The state of an actor with no history. Charts take no input, so one value serves all actors of a kind. */
export function initialState(kind: ActorKind): ChartState {
  const known = initials.get(kind.chart)
  if (known) return known
  const [state, actions] = initialTransition(kind.chart, undefined as never)
  if (actions.length > 0) throw new Error(`chart ${kind.kind}: the initial state has actions`)
  initials.set(kind.chart, state)
  return state
}

/** The facts that this command or report records in this state; none when it is not for this state. */
export function decide(kind: ActorKind, state: ChartState, input: Message, stamp: Stamp): Array<Message> {
  if (!handles(state, input.type)) return []
  const [, actions] = step(kind, state, input, stamp)
  const facts: Array<Message> = []
  for (const action of actions) {
    if (action.type !== "xstate.emit") {
      throw new Error(`chart ${kind.kind}: ${input.type} does ${action.type}; an input may only record facts`)
    }
    facts.push((action.params as { event: Message }).event)
  }
  return facts
}

export interface Evolved {
  readonly state: ChartState
  readonly requests: ReadonlyArray<Request>
}

/** What a recorded fact makes of the state, and what it asks of the ports. A fact that fits nowhere is a bug. */
export function evolve(kind: ActorKind, state: ChartState, fact: Message, stamp: Stamp): Evolved {
  if (!handles(state, fact.type)) {
    throw new Error(`chart ${kind.kind}: fact ${fact.type} is not handled in ${describe(state)}`)
  }
  const [next, actions] = step(kind, state, fact, stamp)
  const requests: Array<Request> = []
  for (const action of actions) {
    if (action.type !== "request") {
      throw new Error(`chart ${kind.kind}: fact ${fact.type} does ${action.type}; a fact may only ask`)
    }
    const asked = action.params as Request | ReadonlyArray<Request>
    requests.push(...(Array.isArray(asked) ? (asked as ReadonlyArray<Request>) : [asked as Request]))
  }
  return { state: next, requests }
}

type Action = { readonly type: string; readonly params: unknown }

/**
 * XState's `transition()` makes an actor and a system for every call, to have where to collect actions. Charts here
 * spawn nothing and send nothing, so one inert scope per chart serves all its actors. `test/kernel` holds this
 * against `transition()`; `npm run bench` says what it gains.
 */
interface InertScope {
  readonly scope: ActorScope<never, never>
  actions: Array<Action>
}

const scopes = new WeakMap<AnyStateMachine, InertScope>()

function scopeOf(chart: AnyStateMachine): InertScope {
  const known = scopes.get(chart)
  if (known) return known
  const self = createActor(chart)
  const inert: InertScope = {
    actions: [],
    scope: {
      self,
      system: self.system,
      id: "",
      sessionId: "",
      defer: () => {},
      logger: () => {},
      stopChild: () => {},
      emit: () => {},
      actionExecutor: (action: Action) => {
        inert.actions.push(action)
      }
    } as unknown as ActorScope<never, never>
  }
  scopes.set(chart, inert)
  return inert
}

function step(
  kind: ActorKind,
  state: ChartState,
  message: Message,
  stamp: Stamp
): [ChartState, ReadonlyArray<Action>] {
  const inert = scopeOf(kind.chart)
  inert.actions = []
  const next = kind.chart.transition(state as never, { ...message, stamp } as never, inert.scope as never)
  return [next as ChartState, inert.actions]
}

function handles(state: ChartState, type: string): boolean {
  for (const node of state._nodes) if (node.transitions.has(type)) return true
  return false
}

/** `running.idle`, or `a & b` for parallel regions. */
export function describe(state: ChartState): string {
  return pathsOf(state.value).join(" & ")
}

function pathsOf(value: unknown): Array<string> {
  if (typeof value === "string") return [value]
  return Object.entries(value as Record<string, unknown>).flatMap(([key, inner]) =>
    pathsOf(inner).map((path) => (path === "" ? key : `${key}.${path}`))
  )
}

/** The commands that the chart has a transition for in this state, in the order of `kind.commands`. */
export function allowedCommands(kind: ActorKind, state: ChartState): Array<string> {
  return kind.commands.filter((type) => handles(state, type))
}

/** The names of the guards that stand before this command here: why an allowed command may record nothing. */
export function guardsOf(state: ChartState, type: string): Array<string> {
  const names = new Set<string>()
  for (const node of state._nodes) {
    for (const candidate of node.transitions.get(type) ?? []) {
      const guard = candidate.guard as { type?: string } | string | undefined
      if (guard !== undefined) names.add(typeof guard === "string" ? guard : (guard.type ?? "guard"))
    }
  }
  return [...names]
}

/** The part of a state that has to be kept; `resume` is its inverse. */
export function keep(state: ChartState): { value: unknown; context: unknown } {
  return { value: state.value, context: state.context }
}

export function resume(kind: ActorKind, kept: { value: unknown; context: unknown }): ChartState {
  return kind.chart.resolveState(kept as never)
}
