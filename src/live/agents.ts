/**
 * The Agents port of a node with a kernel: its own host's agent in this process, the others' over their links.
 * `serveAgent` is the other end.
 */
import { Effect, Layer, Option, Schema, Stream } from "effect"
import { HypervisorReport, HypervisorRequest } from "../events/requests.ts"
import { int, text, withDefault } from "../events/fields.ts"
import { HostAgent } from "../kernel/agent.ts"
import { Agents, AgentUnreachable } from "../kernel/ports/agents.ts"
import { Consensus } from "../kernel/ports/consensus.ts"
import { HandlerFailed, Link } from "../kernel/ports/link.ts"

const kind = "agent.perform"
const ledKind = "agent.led"
/** In which term of the group the kernel asks that performs; 0 of one that decides alone. */
const term = { term: withDefault(int(0, Number.MAX_SAFE_INTEGER), 0) }
const Payload = Schema.Struct({ key: text(256), request: HypervisorRequest, ...term })
const decodeLed = Schema.decodeUnknownEffect(Schema.Struct(term), { onExcessProperty: "error" })
const decodePayload = Schema.decodeUnknownEffect(Payload, { onExcessProperty: "error" })
const decodeReport = Schema.decodeUnknownEffect(HypervisorReport)

/** `own` is this node's host name, or null when it runs no machines. */
export const agentsLayer = (own: string | null): Layer.Layer<Agents, never, HostAgent | Link> =>
  Layer.effect(
    Agents,
    Effect.gen(function* () {
      const agent = yield* HostAgent
      const link = yield* Link
      const order = Option.getOrNull(yield* Effect.serviceOption(Consensus))
      return Agents.of({
        perform: (key, request) => {
          if (request.host === own) return agent.perform(key, request)
          const unreachable = (error: { readonly message: string }) =>
            new AgentUnreachable({ host: request.host, reason: error.message.slice(0, 1000) })
          const asked = { key, request, term: order?.status().term ?? 0 }
          return link.call(request.host, kind, asked).pipe(
            Stream.mapError((error) => unreachable({ message: `${error.code}: ${error.reason}` })),
            Stream.mapEffect((report) => decodeReport(report).pipe(Effect.mapError(unreachable)))
          )
        }
      })
    })
  )

/** Tell every host that is reached in which term this node leads, so that nobody of an earlier one is heard any more. */
export const tellTerm = Effect.fn("tellTerm")(function* (term: number) {
  const link = yield* Link
  const peers = (yield* link.peers).filter(({ state }) => state === "connected")
  yield* Effect.forEach(
    peers,
    ({ node }) => Effect.ignore(Stream.runDrain(link.call(node, ledKind, { term }))),
    { concurrency: tellAtOnce, discard: true }
  )
})

const tellAtOnce = 16

/** Perform what a node with a kernel asks; only those may, and none that asks in an earlier term than another did. */
export const serveAgent = Effect.fn("serveAgent")(function* (
  own: string,
  kernels: () => ReadonlyArray<string>
) {
  const agent = yield* HostAgent
  const link = yield* Link
  const failed = (reason: string) => Effect.fail(new HandlerFailed({ reason: reason.slice(0, 2000) }))
  let latest = 0
  const mayAsk = (peer: string, asked: number) => {
    if (!kernels().includes(peer))
      return failed(`${peer} has no kernel; only ${kernels().join(", ")} may ask`)
    if (asked < latest)
      return failed(`${peer} asks in term ${asked}, and ${latest} has begun: it leads no more`)
    latest = asked
    return Effect.void
  }
  yield* link.serve(kind, (peer, payload) =>
    Stream.unwrap(
      Effect.gen(function* () {
        const { key, request, term } = yield* decodePayload(payload).pipe(
          Effect.catch((error) => failed(error.message))
        )
        yield* mayAsk(peer, term)
        if (request.host !== own) return yield* failed(`this is ${own}, not ${request.host}`)
        return agent.perform(key, request)
      })
    )
  )
  yield* link.serve(ledKind, (peer, payload) =>
    Stream.fromEffect(
      decodeLed(payload).pipe(
        Effect.catch((error) => failed(error.message)),
        Effect.flatMap(({ term }) => mayAsk(peer, term)),
        Effect.as({ heard: true })
      )
    )
  )
})
