/**
 * The cluster's certificate authority: one register of tokens, names and certificates, whoever signs.
 *
 *     keeping ──makeToken, admit, renew, revoke, claim, handKey, takeOver──▶ a fact, or a refusal
 *
 * What is decided here in order is what must not happen twice: that a token lets in one node, and that a name belongs to one
 * key. Signing is no decision: any node with the key does it, of what a fact says (`src/live/ca/register.ts`).
 */
import { setup } from "xstate"
import * as rules from "../../events/authority.ts"
import { AuthorityCommand, AuthorityFact } from "../../events/authority.ts"
import type { AuthorityState } from "../../events/authority.ts"
import { typesOf } from "../../events/envelope.ts"
import { recorder, wholeAssign } from "../../kernel/actor.ts"
import type { ActorKind, Of, Stamped } from "../../kernel/actor.ts"

type Event = Stamped<AuthorityCommand> | Stamped<AuthorityFact>
type FactType = AuthorityFact["type"]
interface Asked {
  readonly context: AuthorityState
  readonly event: Event
}

const record = recorder<AuthorityState, Event, AuthorityFact>()

const guards = {
  "the token is new, and there is room for it": ({ context, event }: Asked) => {
    const { token, stamp } = event as Of<Event, "authority.makeToken">
    return rules.tokenProblem(context, token, stamp.timeMs) === null
  },
  "the token is open and lets this node in": ({ context, event }: Asked) => {
    const asked = event as Of<Event, "authority.admit">
    return rules.admitProblem(context, asked, asked.stamp.timeMs) === null
  },
  "the name belongs to this certificate": ({ context, event }: Asked) => {
    const asked = event as Of<Event, "authority.renew">
    return rules.renewProblem(context, asked, asked.stamp.timeMs) === null
  },
  "the node has a certificate that was not taken back": ({ context, event }: Asked) =>
    rules.revokeProblem(context, (event as Of<Event, "authority.revoke">).node) === null,
  "the certificate is not known yet, and was not taken back": ({ context, event }: Asked) => {
    const { node, serial } = event as Of<Event, "authority.claim">
    return context.names[node]?.serials.includes(serial) !== true && context.revoked[serial] === undefined
  },
  "the certificate is that of a voter": ({ context, event }: Asked) =>
    rules.keyProblem(context, event as Of<Event, "authority.handKey">) === null,
  "something of it is not known yet": ({ context, event }: Asked) => {
    const { names, tokens } = rules.newsOf(context, event as Of<Event, "authority.takeOver">)
    return names.length + tokens.length > 0
  }
}

const evolve = <Type extends FactType>(
  _type: Type,
  next: (state: AuthorityState, fact: Of<AuthorityFact, Type>, timeMs: number) => AuthorityState
) => ({
  actions: wholeAssign<AuthorityState, Event>()(({ context, event }) =>
    next(context, event as unknown as Of<AuthorityFact, Type>, event.stamp.timeMs)
  )
})

const chart = setup({
  types: { context: {} as AuthorityState, events: {} as Event, emitted: {} as AuthorityFact },
  guards
}).createMachine({
  id: "authority",
  context: rules.noAuthority,
  initial: "keeping",
  on: {
    "authority.tokenMade": evolve("authority.tokenMade", rules.tokenMade),
    "authority.admitted": evolve("authority.admitted", rules.admitted),
    "authority.renewed": evolve("authority.renewed", rules.renewed),
    "authority.revoked": evolve("authority.revoked", rules.revoked),
    "authority.claimed": evolve("authority.claimed", rules.claimed),
    "authority.keyHanded": evolve("authority.keyHanded", rules.keyHanded),
    "authority.takenOver": evolve("authority.takenOver", rules.takenOver)
  },
  states: {
    keeping: {
      on: {
        "authority.makeToken": {
          guard: "the token is new, and there is room for it",
          actions: record("authority.makeToken", ({ event: { token, node, votes, lifetimeMs, reason } }) => ({
            type: "authority.tokenMade",
            token,
            node,
            votes,
            lifetimeMs,
            reason
          }))
        },
        "authority.admit": {
          guard: "the token is open and lets this node in",
          actions: record("authority.admit", ({ context, event }) => {
            const { token, node, serial, spki, notAfterMs } = event
            const votes = context.tokens[token]?.votes === true
            return { type: "authority.admitted", token, node, serial, spki, notAfterMs, votes }
          })
        },
        "authority.renew": {
          guard: "the name belongs to this certificate",
          actions: record("authority.renew", ({ context, event }) => {
            const { present, node, serial, spki, notAfterMs } = event
            const votes = context.names[node]?.votes === true
            return { type: "authority.renewed", present, node, serial, spki, notAfterMs, votes }
          })
        },
        "authority.revoke": {
          guard: "the node has a certificate that was not taken back",
          actions: record("authority.revoke", ({ context, event: { node, reason } }) => ({
            type: "authority.revoked",
            node,
            serials: context.names[node]?.serials ?? [],
            reason
          }))
        },
        "authority.claim": {
          guard: "the certificate is not known yet, and was not taken back",
          actions: record("authority.claim", ({ event: { node, serial, spki, notAfterMs, votes } }) => ({
            type: "authority.claimed",
            node,
            serial,
            spki,
            notAfterMs,
            votes
          }))
        },
        "authority.handKey": {
          guard: "the certificate is that of a voter",
          actions: record("authority.handKey", ({ event: { to, serial } }) => ({
            type: "authority.keyHanded",
            to,
            serial
          }))
        },
        "authority.takeOver": {
          guard: "something of it is not known yet",
          actions: record("authority.takeOver", ({ context, event }) => ({
            type: "authority.takenOver",
            ...rules.newsOf(context, event)
          }))
        }
      }
    }
  }
})

export const authorityActor: ActorKind = {
  kind: "authority",
  chart,
  commands: typesOf(AuthorityCommand),
  reports: [],
  facts: typesOf(AuthorityFact),
  snapshotVersion: 1
}
