/** `given(facts).when(message).thenRecords(facts)`, over the kernel's own turn. */
import assert from "node:assert/strict"
import { actorKinds } from "../../src/actors/kinds.ts"
import type { Message } from "../../src/events/envelope.ts"
import { typePrefix } from "../../src/events/envelope.ts"
import type { ActorKind } from "../../src/kernel/actor.ts"
import { describe } from "../../src/kernel/statechart.ts"
import { apply, emptyActor, takeTurn } from "../../src/kernel/turn.ts"
import type { ActorState, Turn } from "../../src/kernel/turn.ts"

export const kindOf = (name: string): ActorKind => {
  const kind = actorKinds.find((one) => one.kind === name)
  if (!kind) throw new Error(`no kind ${name}`)
  return kind
}

const operator = { kind: "operator", name: "test" } as const

/** Fold a fact as the journal would give it. */
export function record(kind: ActorKind, actor: ActorState, fact: Message): ActorState {
  const { type, ...data } = fact
  const id = `given-${actor.revision + 1}`
  const draft = {
    id: `${id}#0`,
    type: typePrefix + type,
    version: 1,
    timeMs: 1000 + actor.revision,
    correlation: "given",
    causation: id,
    principal: operator,
    node: "n",
    answers: null,
    data
  }
  return apply(kind, actor, draft, actor.revision + 1, 0).actor
}

/** One input to an actor; a report answers whatever it has outstanding, or a request made up for it. */
export function input(
  kind: ActorKind,
  actor: ActorState,
  message: Message
): { actor: ActorState; turn: Turn } {
  const isReport = kind.reports.includes(message.type)
  const key = actor.outstanding.at(-1)?.key ?? "made-up"
  const asking = isReport && actor.outstanding.length === 0 ? { ...actor, outstanding: [madeUp] } : actor
  const turn = takeTurn(
    kind,
    asking,
    {
      stream: actor.stream,
      message,
      id: isReport ? key : `command-${actor.revision}`,
      correlation: "c",
      principal: operator,
      answers: isReport ? { key, final: message.type !== "hypervisor.progressed" } : null
    },
    5000,
    "n"
  )
  return { actor: asking, turn }
}

const madeUp = {
  key: "made-up",
  request: { port: "view", op: "hosts" },
  correlation: "c",
  askedMs: 0
} as const

const answered = "kernel.answered"

export const given = (stream: string, facts: ReadonlyArray<Message>) => {
  const kind = kindOf(stream.slice(0, stream.indexOf("/")))
  const before = facts.reduce((actor, fact) => record(kind, actor, fact), emptyActor(kind, stream))
  return {
    when: (message: Message) => {
      const { turn } = input(kind, before, message)
      const said = turn.outcome === "record" ? turn.drafts : []
      const types = said
        .map((draft) => draft.type.slice(typePrefix.length))
        .filter((type) => type !== answered)
      const told = {
        /** These facts, in this order; of each, at least these fields. */
        thenRecords: (...expected: ReadonlyArray<Message>) => {
          assert.deepEqual(
            types,
            expected.map(({ type }) => type)
          )
          for (const [index, { type: _, ...fields }] of expected.entries()) {
            assert.deepEqual({ ...said[index]?.data, ...fields }, said[index]?.data)
          }
          return told
        },
        thenState: (state: string) => {
          assert.equal(turn.outcome, "record")
          if (turn.outcome === "record") assert.equal(describe(turn.next.chart), state)
          return told
        },
        /** What the request has of these fields, the first of their `type` or `op`; of a command, when an actor is asked. */
        thenAsksWith: (fields: Readonly<Record<string, unknown>>) => {
          const requests = turn.outcome === "record" ? turn.requests : []
          const all = requests.map(({ request }): Readonly<Record<string, unknown>> =>
            request.port === "actor" ? request.command : request
          )
          const asked =
            all.find(({ type, op }) => type === fields["type"] && op === fields["op"]) ?? all[0] ?? {}
          const found = Object.entries(asked).filter(([name]) => name in fields)
          assert.deepEqual(Object.fromEntries(found), fields)
          return told
        },
        /** Requests by port, operation or command, and whom they go to. */
        thenAsks: (...expected: ReadonlyArray<string>) => {
          const asked = turn.outcome === "record" ? turn.requests : []
          assert.deepEqual(
            asked.map(({ request }) => {
              if (request.port === "hypervisor") return `${request.op} at ${request.host}`
              if (request.port === "actor") return `${request.command.type} to ${request.to}`
              if (request.port === "component" && request.op === "initialise") {
                return `component initialise ${request.component}`
              }
              return `${request.port} ${request.op}`
            }),
            expected
          )
          return told
        },
        thenRefused: (expected: { readonly state?: string; readonly unmet?: ReadonlyArray<string> } = {}) => {
          assert.equal(turn.outcome, "refuse", `recorded ${types.join(", ")}`)
          if (turn.outcome !== "refuse") return
          if (expected.state !== undefined) assert.equal(turn.state, expected.state)
          if (expected.unmet !== undefined) assert.deepEqual(turn.unmet, expected.unmet)
        },
        thenNothing: () => assert.deepEqual(types, [])
      }
      return told
    }
  }
}
