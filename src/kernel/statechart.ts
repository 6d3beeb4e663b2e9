/**
 * The kernel's one door to XState: decide (input → facts), evolve (fact → next state and requests), and what a
 * state allows. Nothing else in the kernel knows what a chart is made of.
 *
 * XState interprets a chart anew for every transition. What the charts here use of it is little: facts have one
 * transition without a guard, commands and reports record and stay. So each place of a chart is compiled, once, to what
 * its messages do; whatever is more than that is left to XState. `test/kernel/statechart.unit.test.ts` holds both against
 * XState's own `transition()` on paths drawn by seed, and `npm run bench -- --only turns --only replay` says what it gains.
 */
import { createActor, initialTransition } from "xstate"
import type { ActorScope, AnyMachineSnapshot, AnyStateMachine, AnyStateNode } from "xstate"
import type { Message } from "../events/envelope.ts"
import type { Request } from "../events/requests.ts"
import { isWhole, listType } from "./actor.ts"
import type { ActorKind, Stamp } from "./actor.ts"

/** Where an actor stands in its chart, and what it remembers. Only `value` and `context` have to be kept. */
export interface ChartState {
  readonly value: unknown
  readonly context: unknown
  readonly place: Place
}

/** A message as a chart sees it: with when, and for whom, it is taken. */
export type Event = Message & { readonly stamp: Stamp }
/** Does one action of a fact: the context after it; what it asks is added to `asked`. */
type Act = (context: unknown, event: Event, asked: Array<Request>) => unknown
interface Arguments {
  readonly context: unknown
  readonly event: Event
}
type Say = (args: Arguments) => Message

/** What a fact does in a place. */
interface Move {
  readonly to: Place
  readonly acts: ReadonlyArray<Act>
}

/** One of the transitions of a command or report in a place: the facts it records where its guard holds. */
interface Candidate {
  readonly holds: ((args: Arguments) => boolean) | null
  readonly says: (args: Arguments) => Array<Message>
}

/** One combination of active states; all actors that stand there share it. */
interface Place {
  readonly value: unknown
  readonly nodes: ReadonlyArray<AnyStateNode>
  /** By type of message, filled at the first one; null where XState has to do it. */
  readonly moves: Map<string, Move | null>
  readonly candidates: Map<string, ReadonlyArray<Candidate> | null>
}

interface Chart {
  readonly machine: AnyStateMachine
  /** No state of it is more than a name with transitions, alone or in another. */
  readonly isPlain: boolean
  /** By the JSON of their value. */
  readonly places: Map<string, Place>
  readonly initial: ChartState
  readonly inert: InertScope
}

const charts = new WeakMap<AnyStateMachine, Chart>()

function chartOf(kind: ActorKind): Chart {
  const machine = kind.chart
  const known = charts.get(machine)
  if (known) return known
  const [snapshot, actions] = initialTransition(machine, undefined as never)
  if (actions.length > 0) throw new Error(`chart ${kind.kind}: the initial state has actions`)
  const places = new Map<string, Place>()
  const place = placeOf(places, snapshot.value, snapshot._nodes)
  const chart = {
    machine,
    isPlain: isPlain(machine.root),
    places,
    initial: { value: place.value, context: snapshot.context as unknown, place },
    inert: inertScope(machine)
  }
  charts.set(machine, chart)
  return chart
}

/** Not parallel, historical or final, and nothing happens there by itself, at the door or for messages by pattern. */
function isPlain(node: AnyStateNode): boolean {
  const { type, entry, exit, always, after, invoke, transitions, initial } = node
  return (
    (type === "atomic" || type === "compound") &&
    entry.length + exit.length + (always?.length ?? 0) + after.length + invoke.length === 0 &&
    (type === "atomic" || initial.actions.length === 0) &&
    ![...transitions.keys()].some((message) => message.includes("*")) &&
    Object.values(node.states).every(isPlain)
  )
}

function placeOf(places: Map<string, Place>, value: unknown, nodes: ReadonlyArray<AnyStateNode>): Place {
  const key = JSON.stringify(value)
  let place = places.get(key)
  if (!place) places.set(key, (place = { value, nodes, moves: new Map(), candidates: new Map() }))
  return place
}

function stateOf({ places }: Chart, { value, context, _nodes }: AnyMachineSnapshot): ChartState {
  const place = placeOf(places, value, _nodes)
  return { value: place.value, context: context as unknown, place }
}

/** The state of an actor with no history. Charts take no input, so one value serves all actors of a kind. */
export const initialState = (kind: ActorKind): ChartState => chartOf(kind).initial

/** The facts that this command or report records in this state; none when it is not for this state. */
export function decide(kind: ActorKind, state: ChartState, input: Message, stamp: Stamp): Array<Message> {
  const candidates = candidatesOf(kind, state.place, input.type)
  if (candidates === notHandled) return []
  const args: Arguments = { context: state.context, event: { ...input, stamp } }
  if (candidates === null) return decideByXState(kind, state, args.event)
  for (const { holds, says } of candidates) if (holds === null || holds(args)) return listed(says(args))
  return []
}

/** Facts that were decided together count each. */
function listed(facts: Array<Message>): Array<Message> {
  const [only] = facts
  if (facts.length === 1 && only?.type === listType) return listOf(only)
  let hasList = false
  for (const { type } of facts) hasList ||= type === listType
  if (!hasList) return facts
  return facts.flatMap((fact) => (fact.type === listType ? listOf(fact) : [fact]))
}

const listOf = (fact: Message) => (fact as unknown as { facts: Array<Message> }).facts

function decideByXState(kind: ActorKind, state: ChartState, event: Event): Array<Message> {
  const [, actions] = step(kind, state, event)
  const facts: Array<Message> = []
  for (const action of actions) {
    if (action.type !== "xstate.emit") {
      throw new Error(`chart ${kind.kind}: ${event.type} does ${action.type}; an input may only record facts`)
    }
    facts.push((action.params as { event: Message }).event)
  }
  return listed(facts)
}

export interface Evolved {
  readonly state: ChartState
  readonly requests: ReadonlyArray<Request>
}

const nothing: ReadonlyArray<never> = []

/** What a recorded fact makes of the state, and what it asks of the ports. A fact that fits nowhere is a bug. */
export function evolve(kind: ActorKind, state: ChartState, fact: Event): Evolved {
  const move = moveOf(kind, state.place, fact.type)
  if (move === null) return evolveByXState(kind, state, fact)
  const { to, acts } = move
  if (acts.length === 0) {
    return { state: { value: to.value, context: state.context, place: to }, requests: nothing }
  }
  const requests: Array<Request> = []
  let context = state.context
  for (const act of acts) context = act(context, fact, requests)
  return { state: { value: to.value, context, place: to }, requests }
}

function evolveByXState(kind: ActorKind, state: ChartState, event: Event): Evolved {
  if (!handles(state, event.type)) {
    throw new Error(`chart ${kind.kind}: fact ${event.type} is not handled in ${describe(state)}`)
  }
  const [next, actions] = step(kind, state, event)
  const requests: Array<Request> = []
  for (const action of actions) {
    if (action.type !== "request") {
      throw new Error(`chart ${kind.kind}: fact ${event.type} does ${action.type}; a fact may only ask`)
    }
    ask(action.params, requests)
  }
  return { state: next, requests }
}

function ask(params: unknown, asked: Array<Request>): void {
  if (Array.isArray(params)) asked.push(...(params as ReadonlyArray<Request>))
  else asked.push(params as Request)
}

function moveOf(kind: ActorKind, place: Place, type: string): Move | null {
  const known = place.moves.get(type)
  if (known !== undefined) return known
  const move = compileMove(chartOf(kind), place, type)
  place.moves.set(type, move)
  return move
}

const notHandled: ReadonlyArray<Candidate> = []

function candidatesOf(kind: ActorKind, place: Place, type: string): ReadonlyArray<Candidate> | null {
  const known = place.candidates.get(type)
  if (known !== undefined) return known
  const isHandled = place.nodes.some(({ transitions }) => transitions.has(type))
  const candidates = isHandled ? compileCandidates(chartOf(kind), place, type) : notHandled
  place.candidates.set(type, candidates)
  return candidates
}

/** The transitions for this type from the innermost state outwards, as XState looks for them. */
const transitionsOf = (place: Place, type: string) =>
  place.nodes.toSorted((a, b) => b.order - a.order).map((node) => node.transitions.get(type) ?? [])

function compileMove(chart: Chart, place: Place, type: string): Move | null {
  if (!chart.isPlain) return null
  const [transition, ...others] = transitionsOf(place, type).find((some) => some.length > 0) ?? []
  if (transition === undefined || others.length > 0 || transition.guard !== undefined) return null
  const acts: Array<Act> = []
  for (const action of transition.actions as ReadonlyArray<unknown>) {
    const act = compileAct(chart.machine, action)
    if (act === null) return null
    acts.push(act)
  }
  const [target] = transition.target ?? []
  return { to: target === undefined ? place : enter(chart, target), acts }
}

/** The place where a transition to this state ends: its first states inwards. */
function enter({ places }: Chart, target: AnyStateNode): Place {
  let leaf = target
  while (leaf.type === "compound") leaf = leaf.initial.target[0] as AnyStateNode
  const nodes: Array<AnyStateNode> = []
  for (let node: AnyStateNode | undefined = leaf; node; node = node.parent) nodes.unshift(node)
  const value = leaf.path.reduceRight<unknown>(
    (inner, key) => (inner === null ? key : { [key]: inner }),
    null
  )
  return placeOf(places, value, nodes)
}

type Assigner = (args: Arguments, params: unknown) => unknown
interface Named {
  readonly type: string
  readonly params?: unknown
}

/** An `assign`, or a `request` with its parameters; null for anything else. */
function compileAct(machine: AnyStateMachine, action: unknown): Act | null {
  const named: Named | null =
    typeof action === "string" ? { type: action } : typeof action === "object" ? (action as Named) : null
  const known = machine.implementations.actions as Readonly<Record<string, unknown>>
  const done: unknown = named === null ? action : known[named.type]
  const params = paramsOf(named?.params)
  const assignment = (done as { readonly assignment?: unknown } | undefined)?.assignment
  if (assignment !== undefined) return compileAssign(assignment, params)
  if (named?.type !== "request" || (typeof done === "function" && "resolve" in done)) return null
  return (context, event, asked) => {
    ask(params({ context, event }), asked)
    return context
  }
}

const paramsOf = (params: unknown) =>
  typeof params === "function" ? (params as (args: Arguments) => unknown) : () => params

function compileAssign(assignment: unknown, params: (args: Arguments) => unknown): Act {
  if (typeof assignment === "function") {
    const assigner = assignment as Assigner
    if (isWhole(assigner)) return (context, event) => assigner({ context, event }, undefined)
    return (context, event) => {
      const args = { context, event }
      return { ...(context as object), ...(assigner(args, params(args)) as object) }
    }
  }
  const parts = Object.entries(assignment as Readonly<Record<string, unknown>>)
  return (context, event) => {
    const args = { context, event }
    const given = params(args)
    const next: Record<string, unknown> = { ...(context as object) }
    for (const [key, part] of parts)
      next[key] = typeof part === "function" ? (part as Assigner)(args, given) : part
    return next
  }
}

function compileCandidates(chart: Chart, place: Place, type: string): ReadonlyArray<Candidate> | null {
  if (!chart.isPlain) return null
  const candidates: Array<Candidate> = []
  for (const { guard, target, actions } of transitionsOf(place, type).flat()) {
    const holds = guard === undefined ? null : compileGuard(chart.machine, guard)
    const says = (actions as ReadonlyArray<unknown>).map(compileSay)
    if (target !== undefined || holds === undefined || says.includes(null)) return null
    candidates.push({ holds, says: together(says as ReadonlyArray<Say>) })
  }
  return candidates
}

/** A function, or the name of one; undefined for anything else. */
function compileGuard(machine: AnyStateMachine, guard: unknown): NonNullable<Candidate["holds"]> | undefined {
  const known = machine.implementations.guards as Readonly<Record<string, unknown>>
  const check = typeof guard === "string" ? known[guard] : guard
  return typeof check === "function" && !("check" in check) ? (check as Candidate["holds"] & {}) : undefined
}

/** Most transitions say one thing, and every command takes one. */
function together(says: ReadonlyArray<Say>): Candidate["says"] {
  const [only, ...others] = says
  if (only !== undefined && others.length === 0) return (args) => [only(args)]
  return (args) => says.map((say) => say(args))
}

/** An `emit`; null for anything else. */
function compileSay(action: unknown): Say | null {
  const { type, event: said } = action as { readonly type?: string; readonly event?: unknown }
  if (typeof action !== "function" || type !== "xstate.emit") return null
  if (typeof said !== "function") return () => said as Message
  return said as Say
}

type Action = { readonly type: string; readonly params: unknown }

/**
 * XState's `transition()` makes an actor and a system for every call, to have where to collect actions. Charts here
 * spawn nothing and send nothing, so one inert scope per chart serves all its actors.
 */
interface InertScope {
  readonly scope: ActorScope<never, never>
  actions: Array<Action>
}

function inertScope(machine: AnyStateMachine): InertScope {
  const self = createActor(machine)
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
  return inert
}

function step(kind: ActorKind, state: ChartState, event: Event): [ChartState, ReadonlyArray<Action>] {
  const chart = chartOf(kind)
  const { inert } = chart
  inert.actions = []
  const snapshot: AnyMachineSnapshot = kind.chart.resolveState(keep(state) as never)
  const next = kind.chart.transition(snapshot, event, inert.scope as never) as AnyMachineSnapshot
  return [stateOf(chart, next), inert.actions]
}

function handles(state: ChartState, type: string): boolean {
  for (const node of state.place.nodes) if (node.transitions.has(type)) return true
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
  for (const node of state.place.nodes) {
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
  const chart = chartOf(kind)
  const place = chart.places.get(JSON.stringify(kept.value))
  if (place) return { value: place.value, context: kept.context, place }
  return stateOf(chart, kind.chart.resolveState(kept as never))
}
