/**
 * The Consoles port on real hosts. The console of a machine on this host is a unix socket of its QEMU; that of one
 * on another host is carried by the transport, as a transfer with the one channel `console` that its agent lets in
 * when it is asked over the link. The asking lasts as long as the console is open, so a broken link ends both.
 */
import { randomUUID } from "node:crypto"
import { connect } from "node:net"
import type { Socket } from "node:net"
import { Effect, Layer, Schema, Scope, Stream } from "effect"
import { Name, text } from "../events/fields.ts"
import { ConsoleError, Consoles } from "../kernel/ports/consoles.ts"
import type { ConsoleLink, ConsolePlace } from "../kernel/ports/consoles.ts"
import { Hypervisor } from "../kernel/ports/hypervisor.ts"
import { HandlerFailed, Link } from "../kernel/ports/link.ts"
import { Transport } from "../kernel/ports/transport.ts"

const kind = "agent.console"
const channel = "console"
const Payload = Schema.Struct({ vm: Name, transfer: text(128) })
const decodePayload = Schema.decodeUnknownEffect(Payload, { onExcessProperty: "error" })
/** Consoles that a host carries to the kernel's node at the same time. */
const carried_max = 64
const openTimeoutMs = 10_000

type Code = ConsoleError["code"]
const problem = ({ vm, host }: ConsolePlace, code: Code, reason: string) =>
  new ConsoleError({ vm, host, code, reason: reason.slice(0, 2000) })

/** `own` is this node's host name, or null when it runs no machines. */
export const consolesLayer = (
  own: string | null
): Layer.Layer<Consoles, never, Hypervisor | Link | Transport> =>
  Layer.effect(
    Consoles,
    Effect.gen(function* () {
      const hypervisor = yield* Hypervisor
      const link = yield* Link
      const transport = yield* Transport
      const pathOf = (place: ConsolePlace) =>
        place.host === own
          ? hypervisor
              .console(place.vm)
              .pipe(Effect.mapError(({ code, reason }) => problem(place, codeOf(code), reason)))
          : carriedFrom(place, link, transport)
      return Consoles.of({
        simulated: false,
        open: (place) =>
          Effect.flatMap(pathOf(place), (path) => connectTo(place, path)).pipe(
            Effect.timeoutOrElse({
              duration: openTimeoutMs,
              orElse: () =>
                Effect.fail(problem(place, "unreachable", `it was not open within ${openTimeoutMs} ms`))
            })
          )
      })
    })
  )

const codeOf = (code: string): Code => (code === "not-found" || code === "wrong-state" ? code : "failed")

/** Have the other host carry its console to a socket here, until the scope closes. */
const carriedFrom = Effect.fnUntraced(function* (
  place: ConsolePlace,
  link: Link["Service"],
  transport: Transport["Service"]
) {
  const transfer = `console-${randomUUID()}`
  const scope = yield* Effect.scope
  const asked = link.call(place.host, kind, { vm: place.vm, transfer })
  // The first reply says that it is let in; the call goes on until it is cancelled.
  const replies = yield* Stream.toPull(asked).pipe(Scope.provide(scope))
  yield* replies.pipe(
    Effect.mapError((error) =>
      typeof error === "object" && error !== null && "reason" in error && "code" in error
        ? problem(place, error.code === "failed" ? "wrong-state" : "unreachable", String(error.reason))
        : problem(place, "unreachable", "its agent ended the call")
    )
  )
  yield* Scope.addFinalizer(scope, Effect.ignore(transport.close(transfer)))
  const [opened] = yield* transport
    .open(transfer, place.address, [channel])
    .pipe(Effect.mapError(({ reason }) => problem(place, "unreachable", reason)))
  if (opened === undefined) return yield* problem(place, "failed", "the transport opened no channel")
  return opened.path
})

const connectTo = (
  place: ConsolePlace,
  path: string
): Effect.Effect<ConsoleLink, ConsoleError, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<Socket, ConsoleError>((resume) => {
        const socket = connect({ path })
        socket.once("error", (error) => resume(Effect.fail(problem(place, "failed", error.message))))
        socket.once("connect", () => {
          socket.on("error", () => socket.destroy())
          resume(Effect.succeed(socket))
        })
        return Effect.sync(() => socket.destroy())
      }),
      (socket) => Effect.sync(() => leave(socket))
    ),
    (socket) => linkOn(place, socket)
  )

const leaveMs = 1000

/** What was typed last still gets there; a guest that does not take it must not keep the console from the next one. */
function leave(socket: Socket): void {
  socket.destroySoon()
  setTimeout(() => socket.destroy(), leaveMs).unref()
}

const linkOn = (place: ConsolePlace, socket: Socket): ConsoleLink => ({
  output: Stream.fromAsyncIterable<Uint8Array, ConsoleError>(socket, (cause) =>
    problem(place, "lost", cause instanceof Error ? cause.message : String(cause))
  ),
  write: (octets) =>
    Effect.callback<void, ConsoleError>((resume) => {
      if (socket.destroyed) return resume(Effect.fail(problem(place, "lost", "the console is closed")))
      socket.write(octets, (error) =>
        resume(error ? Effect.fail(problem(place, "lost", error.message)) : Effect.void)
      )
    })
})

/** Carry this host's consoles to other nodes that have a kernel, and to nobody else. */
export const serveConsoles = Effect.fn("serveConsoles")(function* (kernels: () => ReadonlyArray<string>) {
  const hypervisor = yield* Hypervisor
  const link = yield* Link
  const transport = yield* Transport
  let carried = 0
  const leave = (transfer: string) =>
    Effect.andThen(
      Effect.sync(() => (carried -= 1)),
      Effect.ignore(transport.close(transfer))
    )
  const letIn = Effect.fnUntraced(function* (peer: string, payload: unknown) {
    if (!kernels().includes(peer)) {
      const reason = `${peer} has no kernel; only ${kernels().join(", ")} may ask`
      return yield* new HandlerFailed({ reason })
    }
    const failed = (error: { readonly message: string }) =>
      new HandlerFailed({ reason: error.message.slice(0, 2000) })
    const { vm, transfer } = yield* decodePayload(payload).pipe(Effect.mapError(failed))
    if (carried >= carried_max) {
      const reason = `${carried} consoles are carried, at most ${carried_max} may be`
      return yield* new HandlerFailed({ reason })
    }
    const path = yield* hypervisor.console(vm).pipe(Effect.mapError(failed))
    yield* Effect.acquireRelease(
      Effect.sync(() => (carried += 1)),
      () => leave(transfer)
    )
    yield* transport.accept(transfer, peer, [{ name: channel, path }]).pipe(Effect.mapError(failed))
    return Stream.concat(Stream.make({ opened: true }), Stream.never)
  })
  yield* link.serve(kind, (peer, payload) => Stream.unwrap(letIn(peer, payload)))
})
