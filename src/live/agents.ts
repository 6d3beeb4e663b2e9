/**
 * The Agents port of a node with a kernel: its own host's agent in this process, the others' over their links.
 * `serveAgent` is the other end.
 */
import { Effect, Layer, Schema, Stream } from "effect"
import { HypervisorReport, HypervisorRequest } from "../events/requests.ts"
import { text } from "../events/fields.ts"
import { HostAgent } from "../kernel/agent.ts"
import { Agents, AgentUnreachable } from "../kernel/ports/agents.ts"
import { HandlerFailed, Link } from "../kernel/ports/link.ts"

const kind = "agent.perform"
const Payload = Schema.Struct({ key: text(256), request: HypervisorRequest })
const decodePayload = Schema.decodeUnknownEffect(Payload, { onExcessProperty: "error" })
const decodeReport = Schema.decodeUnknownEffect(HypervisorReport)

/** `own` is this node's host name, or null when it runs no machines. */
export const agentsLayer = (own: string | null): Layer.Layer<Agents, never, HostAgent | Link> =>
  Layer.effect(
    Agents,
    Effect.gen(function* () {
      const agent = yield* HostAgent
      const link = yield* Link
      return Agents.of({
        perform: (key, request) => {
          if (request.host === own) return agent.perform(key, request)
          const unreachable = (error: { readonly message: string }) =>
            new AgentUnreachable({ host: request.host, reason: error.message.slice(0, 1000) })
          return link.call(request.host, kind, { key, request }).pipe(
            Stream.mapError((error) => unreachable({ message: `${error.code}: ${error.reason}` })),
            Stream.mapEffect((report) => decodeReport(report).pipe(Effect.mapError(unreachable)))
          )
        }
      })
    })
  )

/** Perform what a node with a kernel asks; only those may. */
export const serveAgent = Effect.fn("serveAgent")(function* (
  own: string,
  kernels: () => ReadonlyArray<string>
) {
  const agent = yield* HostAgent
  const link = yield* Link
  yield* link.serve(kind, (peer, payload) =>
    !kernels().includes(peer)
      ? Stream.fail(
          new HandlerFailed({ reason: `${peer} has no kernel; only ${kernels().join(", ")} may ask` })
        )
      : Stream.unwrap(
          decodePayload(payload).pipe(
            Effect.mapError((error) => new HandlerFailed({ reason: error.message.slice(0, 2000) })),
            Effect.flatMap(({ key, request }) =>
              request.host === own
                ? Effect.succeed(agent.perform(key, request))
                : Effect.fail(new HandlerFailed({ reason: `this is ${own}, not ${request.host}` }))
            )
          )
        )
  )
})
