/**
 * One placement decision, from the question to the room it got.
 *
 *   idle ──request──▶ viewing ──view──▶ reserving ──accepted──▶ replying ──▶ done
 *                        ▲    └─no host──▶ replying   │ refused
 *                        └──────contested, 3 times────┘
 */
import { assign, setup } from "xstate"
import { typesOf } from "../../events/envelope.ts"
import { PlacementCommand, PlacementFact } from "../../events/placement.ts"
import type { PlacementReport } from "../../events/placement.ts"
import type { Report, Request } from "../../events/requests.ts"
import { recorder } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"
import { needsOf } from "../../events/feasibility.ts"
import { decidePlacement } from "./decide.ts"
import type { Question } from "./decide.ts"

type Event =
  | Stamped<PlacementCommand>
  | Stamped<PlacementReport>
  | Stamped<Of<Report, "actor.accepted" | "actor.refused">>
  | Stamped<PlacementFact>

interface Context {
  readonly id: string
  readonly question: Question | null
  readonly replyTo: string
  readonly attempts: number
  readonly chosen: string | null
  readonly address: string
}

const attempts_max = 3

const record = recorder<Context, Event, PlacementFact>()

const decisionOf = (context: Context, event: Of<Event, "view.hosts">) =>
  decidePlacement(context.question as Question, event.hosts, event.others)

const decided = record("view.hosts", ({ context, event }) => {
  const { chosen, ...decision } = decisionOf(context, event)
  const told = { attempt: context.attempts + 1, viewPosition: event.position, ...decision }
  return chosen === null
    ? { type: "placement.noHost", ...told, chosen }
    : { type: "placement.decided", ...told, chosen, address: addressOf(event, chosen) }
})

const addressOf = (event: Of<Event, "view.hosts">, chosen: string): string =>
  event.hosts.find((host) => host.name === chosen)?.address ?? ""

/** Each attempt looks at the hosts in another order. */
const viewHosts = {
  type: "request" as const,
  params: ({ context }: { context: Context }): Request => ({
    port: "view",
    op: "hosts",
    question: context.question as Question,
    draw: `${context.id}/${context.attempts + 1}`.slice(-160)
  })
}

const reserve = (context: Context, host: string): Request => {
  const { vm, spec } = context.question as Question
  return {
    port: "actor",
    to: `host/${host}`,
    command: { type: "host.reserve", reservation: context.id, vm, needs: needsOf(spec) }
  }
}

/** Who asked is told in the words of its own kind. */
const reply = (context: Context, host: string | null, reason: string): Request => ({
  port: "actor",
  to: context.replyTo,
  command: {
    type: `${context.replyTo.slice(0, context.replyTo.indexOf("/"))}.${host === null ? "refusePlacement" : "place"}`,
    decision: context.id,
    ...(host === null ? { reason } : { host, address: context.address })
  }
})

const chart = setup({
  types: { context: {} as Context, events: {} as Event, emitted: {} as PlacementFact },
  actions: { request: (_, _params: Request) => {} },
  guards: {
    mayTryAgain: ({ context }) => context.attempts < attempts_max,
    holdsRoom: ({ context }) => context.chosen !== null
  }
}).createMachine({
  id: "placement",
  context: { id: "", question: null, replyTo: "", attempts: 0, chosen: null, address: "" },
  initial: "idle",
  states: {
    idle: {
      on: {
        "placement.request": {
          actions: record("placement.request", ({ event }) => ({
            type: "placement.requested",
            decision: event.stamp.self.slice("placement/".length),
            vm: event.vm,
            spec: event.spec,
            ...(event.platform === undefined ? {} : { platform: event.platform }),
            ...(event.capabilities === undefined ? {} : { capabilities: event.capabilities }),
            purpose: event.purpose,
            ...(event.from === undefined ? {} : { from: event.from }),
            ...(event.pinned === undefined ? {} : { pinned: event.pinned }),
            replyTo: event.replyTo
          }))
        },
        "placement.requested": {
          target: "viewing",
          actions: [
            assign(({ event }) => ({
              id: event.decision,
              replyTo: event.replyTo,
              question: {
                vm: event.vm,
                spec: event.spec,
                platform: event.platform ?? null,
                capabilities: event.capabilities ?? [],
                purpose: event.purpose,
                from: event.from ?? null,
                pinned: event.pinned ?? null
              }
            })),
            viewHosts
          ]
        }
      }
    },
    viewing: {
      on: {
        "view.hosts": { actions: decided },
        "placement.decided": {
          target: "reserving",
          actions: [
            assign(({ event }) => ({
              attempts: event.attempt,
              chosen: event.chosen,
              address: event.address
            })),
            { type: "request", params: ({ context, event }) => reserve(context, event.chosen) }
          ]
        },
        "placement.noHost": {
          target: "replying",
          actions: { type: "request", params: ({ context, event }) => reply(context, null, event.reason) }
        }
      }
    },
    reserving: {
      on: {
        "actor.accepted": {
          actions: record("actor.accepted", ({ context }) => ({
            type: "placement.settled",
            host: context.chosen as string
          }))
        },
        "actor.refused": [
          {
            guard: "mayTryAgain",
            actions: record("actor.refused", ({ context, event }) => ({
              type: "placement.contested",
              host: context.chosen as string,
              reason: event.reason
            }))
          },
          {
            actions: record("actor.refused", ({ context, event }) => ({
              type: "placement.failed",
              reason: `${context.attempts} hosts in turn had no room when it was reserved; the last: ${event.reason}`
            }))
          }
        ],
        "placement.settled": {
          target: "replying",
          actions: { type: "request", params: ({ context, event }) => reply(context, event.host, "") }
        },
        "placement.contested": { target: "viewing", actions: viewHosts },
        "placement.failed": {
          target: "replying",
          actions: [
            assign({ chosen: null }),
            { type: "request", params: ({ context, event }) => reply(context, null, event.reason) }
          ]
        }
      }
    },
    replying: {
      on: {
        "actor.accepted": { actions: record("actor.accepted", () => ({ type: "placement.replied" })) },
        "actor.refused": [
          {
            guard: "holdsRoom",
            actions: record("actor.refused", ({ event }) => ({
              type: "placement.withdrawn",
              reason: event.reason
            }))
          },
          { actions: record("actor.refused", () => ({ type: "placement.replied" })) }
        ],
        "placement.replied": { target: "done" },
        "placement.withdrawn": {
          target: "done",
          actions: {
            type: "request",
            params: ({ context }) => ({
              port: "actor",
              to: `host/${context.chosen}`,
              command: {
                type: "host.release",
                reservation: context.id,
                vm: (context.question as Question).vm
              }
            })
          }
        }
      }
    },
    done: {}
  }
})

export const placementActor: ActorKind = {
  kind: "placement",
  chart,
  commands: typesOf(PlacementCommand),
  reports: ["view.hosts", "actor.accepted", "actor.refused"],
  facts: typesOf(PlacementFact),
  snapshotVersion: 2
}
