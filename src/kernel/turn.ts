/**
 * One turn, pure: an actor's state and a stamped input in; drafts to append, the state after them and the requests
 * to perform out. The same `apply` folds stored facts on replay, so live and replayed states are one thing.
 */
import type { Draft, Message, Principal, Recorded } from "../events/envelope.ts"
import { withPrefix, withoutPrefix } from "../events/envelope.ts"
import type { Request } from "../events/requests.ts"
import type { ActorKind } from "./actor.ts"
import { idsOf, isRecent, recentOf, remember } from "./recent.ts"
import type { Recent } from "./recent.ts"
import {
  allowedCommands,
  decide,
  describe,
  evolve,
  guardsOf,
  initialState,
  keep,
  resume
} from "./statechart.ts"
import type { ChartState } from "./statechart.ts"

/** What reaches an actor. A report names the request it answers; `final` concludes that request. */
export interface Input {
  readonly stream: string
  readonly message: Message
  readonly id: string
  readonly correlation: string
  readonly principal: Principal
  readonly answers: { readonly key: string; readonly final: boolean } | null
}

export interface Outstanding {
  readonly key: string
  readonly request: Request
  readonly correlation: string
  /** When the fact that asked was stamped; a timer counts from here, also after a restart. */
  readonly askedMs: number
}

export interface ActorState {
  readonly stream: string
  readonly revision: number
  readonly position: number
  readonly chart: ChartState
  readonly outstanding: ReadonlyArray<Outstanding>
  /** The latest inputs that recorded facts. */
  readonly recent: Recent
}

const none: ReadonlyArray<Outstanding> = []

/** The kernel's own fact: a request was answered, and the chart had no use for the answer in that state. */
export const answeredType = "kernel.answered"

export const emptyActor = (kind: ActorKind, stream: string): ActorState => ({
  stream,
  revision: -1,
  position: 0,
  chart: initialState(kind),
  outstanding: [],
  recent: recentOf([])
})

export type Turn =
  | {
      readonly outcome: "record"
      readonly drafts: ReadonlyArray<Draft>
      readonly next: ActorState
      readonly requests: ReadonlyArray<Outstanding>
    }
  | { readonly outcome: "duplicate" }
  | { readonly outcome: "nothing" }
  | {
      readonly outcome: "refuse"
      readonly state: string
      readonly allowed: ReadonlyArray<string>
      readonly unmet: ReadonlyArray<string>
    }

export function takeTurn(
  kind: ActorKind,
  actor: ActorState,
  input: Input,
  timeMs: number,
  node: string
): Turn {
  if (isRecent(actor.recent, input.id)) return { outcome: "duplicate" }
  if (input.answers && !actor.outstanding.some((asked) => asked.key === input.answers?.key)) {
    return { outcome: "duplicate" }
  }
  let facts = decide(kind, actor.chart, input.message, { self: actor.stream, timeMs })
  if (facts.length === 0) {
    if (input.answers === null) return refusal(kind, actor, input)
    if (!input.answers.final) return { outcome: "nothing" }
    facts = [{ type: answeredType, report: input.message.type, state: describe(actor.chart) }]
  }
  // Progress repeats under one key, so the place in the stream makes its ids unique.
  const id = input.answers && !input.answers.final ? `${input.id}~${actor.revision + 1}` : input.id
  let requests = none
  let next = actor
  const drafts = facts.map(({ type, ...data }, index) => {
    const draft: Draft = {
      id: `${id}#${index}`,
      type: withPrefix(type),
      version: 1,
      timeMs,
      correlation: input.correlation,
      causation: id,
      principal: input.principal,
      node,
      answers: index === 0 && input.answers?.final ? input.answers.key : null,
      data
    }
    const applied = apply(kind, next, draft, next.revision + 1, 0)
    next = applied.actor
    if (applied.requests.length > 0) requests = [...requests, ...applied.requests]
    return draft
  })
  if (requests.length > 0) requests = requests.filter((asked) => stillWanted(next, asked))
  return { outcome: "record", drafts, next, requests }
}

/** A timer that the same turn also stopped is not worth starting; what ends something else has to be performed. */
function stillWanted(actor: ActorState, asked: Outstanding): boolean {
  return endsOthers(asked.request) || actor.outstanding.some((kept) => kept.key === asked.key)
}

function refusal(kind: ActorKind, actor: ActorState, input: Input): Turn {
  const allowed = allowedCommands(kind, actor.chart)
  const unmet = allowed.includes(input.message.type) ? guardsOf(actor.chart, input.message.type) : []
  return { outcome: "refuse", state: describe(actor.chart), allowed, unmet }
}

const endsOthers = (request: Request): boolean =>
  (request.port === "timer" && request.op === "stop") || request.port === "agents"

/** Fold one fact into an actor; `requests` are what it newly asks. `position` is 0 until the store gave it one. */
export function apply(
  kind: ActorKind,
  actor: ActorState,
  fact: Draft | Recorded,
  revision: number,
  position: number
): { actor: ActorState; requests: ReadonlyArray<Outstanding> } {
  const type = withoutPrefix(fact.type)
  const stamp = { self: actor.stream, timeMs: fact.timeMs }
  const evolved =
    type === answeredType
      ? { state: actor.chart, requests: [] }
      : evolve(kind, actor.chart, { ...fact.data, type, stamp })
  const requests = outstandingOf(actor.stream, revision, fact, evolved.requests)
  return {
    actor: {
      stream: actor.stream,
      revision,
      position,
      chart: evolved.state,
      outstanding: nextOutstanding(actor.outstanding, fact.answers, requests),
      recent: remember(actor.recent, fact.causation)
    },
    requests
  }
}

function outstandingOf(
  stream: string,
  revision: number,
  { correlation, timeMs }: Draft | Recorded,
  requests: ReadonlyArray<Request>
): ReadonlyArray<Outstanding> {
  // Most facts ask for nothing.
  if (requests.length === 0) return none
  return requests.map((request, index) => ({
    key: `${stream}@${revision}#${index}`,
    request,
    correlation,
    askedMs: timeMs
  }))
}

function nextOutstanding(
  before: ReadonlyArray<Outstanding>,
  answered: string | null,
  asked: ReadonlyArray<Outstanding>
): ReadonlyArray<Outstanding> {
  if (answered === null && asked.length === 0) return before
  let open = answered === null ? before : before.filter((one) => one.key !== answered)
  for (const one of asked) {
    const request = one.request
    if (request.port === "timer") {
      open = open.filter(({ request: r }) => !(r.port === "timer" && r.name === request.name))
      if (request.op === "stop") continue
    }
    if (request.port === "agents") {
      open = open.filter(({ request: r }) => !(r.port === "hypervisor" && r.host === request.host))
      continue
    }
    open = [...open, one]
  }
  return open
}

/** The text of a snapshot: equal histories give equal bytes. */
export function serialize(actor: ActorState): string {
  return JSON.stringify({
    ...keep(actor.chart),
    revision: actor.revision,
    position: actor.position,
    outstanding: actor.outstanding,
    recent: idsOf(actor.recent)
  })
}

export function deserialize(kind: ActorKind, stream: string, text: string): ActorState {
  const kept = JSON.parse(text) as Omit<ActorState, "stream" | "chart" | "recent"> & {
    value: unknown
    context: unknown
    recent: ReadonlyArray<string>
  }
  return {
    stream,
    revision: kept.revision,
    position: kept.position,
    chart: resume(kind, kept),
    outstanding: kept.outstanding,
    recent: recentOf(kept.recent)
  }
}
