/**
 * How a voter comes to have the authority's key: it asks another one, over mutual TLS, protocol `novacron-key/1`.
 *
 *     new voter                                              voter with the key
 *       | TLS 1.3, both certificates                          |  the certificate has the role of a voter, the node is a voter of
 *       |---------------------------------------------------->|  the group, and that it gets the key is a fact before it does
 *       |                     opened: {key, certificate}      |
 *       |<----------------------------------------------------|  or refuse
 *
 * The key is in no log, no journal and no other message.
 */
import { randomUUID } from "node:crypto"
import { Effect, FiberSet, Schema } from "effect"
import { Refusal } from "../../events/link.ts"
import { text } from "../../events/fields.ts"
import type { Consensus } from "../../kernel/ports/consensus.ts"
import type { Directory } from "../consensus/directory.ts"
import { Endpoint, protocols } from "../link/endpoint.ts"
import type { Accepted } from "../link/endpoint.ts"
import { receiveFrame } from "../link/exchange.ts"
import { decodePayload, encodeJson, FrameError, frameType } from "../link/frames.ts"
import { mayVote } from "./certificate.ts"
import { CaError } from "./files.ts"
import type { HeldKey } from "./held-key.ts"
import { provesAuthority } from "./join.ts"
import type { Register } from "./register.ts"

const KeyAnswer = Schema.Struct({ key: text(4096), certificate: text(16_384) })
type KeyAnswer = typeof KeyAnswer.Type

/** The giving one has it decided on first. */
const answerTimeoutMs = 20_000
const askEveryMs = 1000
const askEveryMs_max = 30_000

const whyNot = ({ peer, certificate }: Accepted, order: Consensus["Service"]): string | null => {
  if (!mayVote(certificate)) return `${peer} may not vote: its certificate is one of a host`
  const { voters } = order.status().members
  return voters.includes(peer) ? null : `${peer} is no voter of the group`
}

/** Give the key to voters until the scope closes. */
export const serveKey = Effect.fn("ca.serveKey")(function* (register: Register, order: Consensus["Service"]) {
  const endpoint = yield* Endpoint
  const run = yield* FiberSet.makeRuntime<never, void, never>()
  const answer = Effect.fnUntraced(function* (accepted: Accepted) {
    const { peer, certificate } = accepted
    // As new as the question: a node that was left behind does not give the key to who was removed meanwhile.
    yield* register.state
    const problem = whyNot(accepted, order)
    if (problem !== null) return yield* new CaError({ code: "invalid", path: "node", reason: problem })
    const given: KeyAnswer = yield* register.handKey(
      peer,
      certificate.serialNumber,
      `key/${peer}/${randomUUID()}`
    )
    return given
  })
  yield* endpoint.route({
    protocol: protocols.key,
    take: (accepted) => {
      const { socket, peer } = accepted
      run(
        answer(accepted).pipe(
          Effect.matchEffect({
            onSuccess: (given) => {
              socket.write(encodeJson(frameType.opened, 0, given))
              return Effect.logInfo(`${peer} was given the authority's key: it votes`)
            },
            onFailure: ({ reason }) => {
              const refusal: Refusal = { code: "refused", reason: reason.slice(0, 2048) }
              socket.write(encodeJson(frameType.refuse, 0, refusal))
              return Effect.logWarning(`${peer} asked for the authority's key and did not get it: ${reason}`)
            }
          }),
          Effect.ensuring(Effect.sync(() => socket.destroySoon()))
        )
      )
    }
  })
})

const askFor = Effect.fnUntraced(function* (node: string, address: string) {
  const endpoint = yield* Endpoint
  const failed = (reason: string) => new CaError({ code: "failed", path: node, reason })
  const frame = yield* Effect.acquireUseRelease(
    endpoint.dial(address, protocols.key, node),
    ({ socket }) => receiveFrame(socket, answerTimeoutMs),
    ({ socket }) => Effect.sync(() => socket.destroy())
  ).pipe(Effect.mapError((error) => failed(error.reason)))
  const given = yield* Effect.try({
    try: () =>
      frame.type === frameType.opened ? decodePayload(KeyAnswer, frame) : decodePayload(Refusal, frame),
    // What is wrong with a payload could quote it.
    catch: (error) => failed(error instanceof FrameError ? "the answer is none of this protocol" : "defect")
  })
  if ("reason" in given) return yield* failed(given.reason)
  return given
})

/** Until this node has the key, or is no member any more: ask the other voters, when it is one. `ca`: the authority's certificate, as this node knows it. */
export const fetchKey = Effect.fn("ca.fetchKey")(function* (
  key: HeldKey,
  ca: string,
  order: Consensus["Service"],
  directory: Directory["Service"]
) {
  let told = ""
  let againMs = askEveryMs
  while (key.authority === null && directory.removed() === null) {
    const { members, leader } = order.status()
    const others = members.voters.filter((node) => node !== order.node)
    // Whoever leads decides, so it knows first.
    const asked = [...others].sort((a, b) => Number(b === leader) - Number(a === leader))
    for (const node of members.voters.includes(order.node) ? asked : []) {
      const address = directory.addressOf(node)
      if (address === null || key.authority !== null) continue
      const said = yield* Effect.result(
        Effect.flatMap(askFor(node, address), (given) =>
          given.certificate === ca
            ? key.take(given.key, ca)
            : Effect.fail(new CaError({ code: "invalid", path: node, reason: "it has another authority" }))
        )
      )
      const reason = said._tag === "Failure" ? `${node}: ${said.failure.reason}` : ""
      if (reason !== "" && reason !== told)
        yield* Effect.logWarning(`the authority's key is not here yet: ${reason}`)
      if (reason === "")
        yield* Effect.logInfo(`${node} gave the authority's key: this node lets nodes in now`)
      told = reason
      againMs = Math.min(askEveryMs_max, againMs * 2)
    }
    if (key.authority === null) yield* Effect.sleep(againMs)
  }
})

/**
 * A node that votes no more gives up its copy, as soon as another one has shown that it has the key: the last one is never
 * thrown away. Whoever could read this node's disk before may have copied it all the same (ADR 18).
 */
export const giveUpKey = Effect.fn("ca.giveUpKey")(function* (
  key: HeldKey,
  ca: string,
  addresses: () => ReadonlyArray<string>
) {
  while (key.authority !== null) {
    for (const address of addresses()) {
      if (!(yield* provesAuthority(address, ca))) continue
      yield* key.forget
      return yield* Effect.logInfo("the authority's key was removed from this node: it votes no more")
    }
    yield* Effect.sleep(askEveryMs * 5)
  }
})
