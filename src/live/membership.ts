/**
 * How a host comes to be known, and known to be gone. Its node registers it at every start and whenever the link
 * to the kernel's node is new; the kernel's node says that a host is lost when its link stays down.
 */
import { Clock, Effect, Random, Schedule, Schema, Stream } from "effect"
import { Name, Stream as StreamName, text } from "../events/fields.ts"
import { HostCommand } from "../events/host.ts"
import type { Message } from "../events/envelope.ts"
import { VmCommand, VmState } from "../events/vm.ts"
import { HostAgent } from "../kernel/agent.ts"
import { Kernel } from "../kernel/kernel.ts"
import { Hypervisor } from "../kernel/ports/hypervisor.ts"
import { HandlerFailed, Link } from "../kernel/ports/link.ts"

const kind = "node.say"
const Said = Schema.Struct({
  stream: StreamName,
  id: text(256),
  message: Schema.Union([HostCommand, VmCommand])
})
type Said = typeof Said.Type
/** All machines that lie on a host, as its hypervisor has them. */
const Machines = Schema.Struct({
  host: Name,
  machines: Schema.Array(Schema.Struct({ vm: Name, state: VmState })).check(Schema.isMaxLength(10_000))
})
type Machines = typeof Machines.Type
const decode = Schema.decodeUnknownEffect(Schema.Union([Said, Machines]), { onExcessProperty: "error" })

/** A node may register the host of its own name, and say what became of machines there; nothing else. */
function mayNotSay(peer: string, said: Said | Machines): string | null {
  if ("machines" in said) return said.host === peer ? null : `${peer} may not say what lies on ${said.host}`
  const { stream, message } = said
  if (message.type === "host.register" && stream === `host/${peer}`) return null
  if (message.type === "vm.reportEnded" && message.host === peer && stream.startsWith("vm/")) return null
  return `${peer} may not say ${message.type} to ${stream}`
}

/** At the node with the kernel: take what other nodes say. */
export const serveMembership = Effect.fn("serveMembership")(function* () {
  const kernel = yield* Kernel
  const link = yield* Link
  yield* link.serve(kind, (peer, payload) =>
    Stream.fromEffect(
      Effect.gen(function* () {
        const said = yield* decode(payload)
        const refusal = mayNotSay(peer, said)
        if (refusal !== null) return yield* new HandlerFailed({ reason: refusal })
        yield* "machines" in said ? reconcile(kernel, peer, said) : kernel.submit(commandOf(peer, said))
        return { accepted: true }
      }).pipe(Effect.mapError((error) => new HandlerFailed({ reason: error.message.slice(0, 2000) })))
    )
  )
})

const commandOf = (node: string, { stream, id, message }: Said) => ({
  stream,
  message: message as Message,
  id,
  correlation: id,
  principal: { kind: "node" as const, name: node }
})

const reconciledAtOnce = 16

/** What is read here of the actors' states. */
interface Placed {
  readonly host: string | null
  readonly migration: string | null
}
interface Leaves {
  readonly leftovers: Readonly<Record<string, string>>
}

/**
 * Hold what lies on a host against the journal. Each machine that is said to be there is told how its host has it,
 * and asks the host itself when that differs. What the journal does not know there is named and left alone: after a
 * journal was restored from a backup it may be the only copy.
 */
const reconcile = Effect.fnUntraced(function* (
  kernel: Kernel["Service"],
  node: string,
  { host, machines }: Machines
) {
  const found = new Map(machines.map(({ vm, state }) => [vm, state]))
  const leftovers = (kernel.resident().get(`host/${host}`)?.chart.context as Leaves | undefined)?.leftovers
  const observed: Array<Said> = []
  const id = `observe/${host}/${yield* Clock.currentTimeMillis}`
  for (const { stream, chart } of kernel.resident().values()) {
    if (!stream.startsWith("vm/")) continue
    const vm = stream.slice("vm/".length)
    const own = chart.context as Placed
    // While it moves its migration asks for it.
    if (own.migration !== null) found.delete(vm)
    if (own.host !== host) continue
    const message = { type: "vm.observe" as const, host, state: found.get(vm) ?? ("absent" as const) }
    observed.push({ stream, id: `${id}/${vm}`, message })
    found.delete(vm)
  }
  yield* Effect.forEach(observed, (said) => Effect.ignore(kernel.submit(commandOf(node, said))), {
    concurrency: reconciledAtOnce,
    discard: true
  })
  const unknown = [...found.keys()].filter((vm) => leftovers?.[vm] === undefined)
  if (unknown.length > 0) {
    const named = unknown.slice(0, 20).join(", ")
    yield* Effect.logWarning(
      `${unknown.length} machines on ${host} have no place there in the journal: ${named}`
    )
  }
})

export type Say = (said: Said | Machines) => Effect.Effect<void, { readonly message: string }>

/** Say it to the kernel in this process. */
export const sayHere = Effect.fn("sayHere")(function* (node: string) {
  const kernel = yield* Kernel
  const say: Say = (said) =>
    "machines" in said ? reconcile(kernel, node, said) : Effect.asVoid(kernel.submit(commandOf(node, said)))
  return say
})

/** Say it over the link to a node with a kernel: to the first of them that takes it. */
export const sayOver = Effect.fn("sayOver")(function* (kernels: () => ReadonlyArray<string>) {
  const link = yield* Link
  const sayTo = (node: string, said: Said | Machines) =>
    link.call(node, kind, said).pipe(
      Stream.runDrain,
      Effect.mapError((error) => ({ message: `${error.code}: ${error.reason}` }))
    )
  const say: Say = (said) =>
    Effect.suspend(() => {
      const [first = "", ...others] = kernels()
      return others.reduce(
        (tried, node) => tried.pipe(Effect.catch(() => sayTo(node, said))),
        sayTo(first, said)
      )
    })
  return say
})

export interface RegisterOptions {
  readonly host: string
  readonly address: string
  readonly labels: Readonly<Record<string, string>>
  /** Changes when the link to the kernel's node is a new one; a constant where the kernel is in this process. */
  readonly linkedSince: Effect.Effect<number | string | null>
}

const watchMs = 250
const endedTries = 60

/** Register, register again after every new link, and forward what ended. Runs until interrupted. */
export const takePart = Effect.fn("takePart")(function* (say: Say, options: RegisterOptions) {
  const hypervisor = yield* Hypervisor
  const agent = yield* HostAgent
  const found = yield* hypervisor.facts.pipe(
    Effect.tapError(({ reason }) =>
      Effect.logError(
        `host ${options.host} can't take part: its hypervisor tells nothing of itself: ${reason}`
      )
    )
  )
  const facts = { ...found, labels: options.labels }
  const start = `${yield* Clock.currentTimeMillis}-${yield* Random.nextIntBetween(0, 2 ** 31)}`
  const stream = `host/${options.host}`
  const message = { type: "host.register" as const, address: options.address, facts }

  const forward = agent.ended.pipe(
    Stream.runForEach((message) => {
      const { vm, command } = message
      return Effect.gen(function* () {
        const id = `ended/${options.host}/${vm}/${yield* Clock.currentTimeMillis}`
        // Refused while the machine is between two places: asked again, within a limit.
        yield* say({ stream: `vm/${vm}`, id, message: command }).pipe(
          Effect.retry({
            schedule: Schedule.max([Schedule.spaced("1 second"), Schedule.recurs(endedTries)])
          }),
          Effect.catch((error) => Effect.logWarning(`the end of ${vm} was not taken: ${error.message}`)),
          Effect.forkScoped
        )
      })
    }),
    Effect.scoped
  )
  const tellMachines = Effect.flatMap(hypervisor.list, (machines) =>
    say({ host: options.host, machines })
  ).pipe(
    Effect.catch((error) => Effect.logWarning(`what lies on ${options.host} was not told: ${error.message}`))
  )
  const register = Effect.gen(function* () {
    let registeredFor: number | string | null = null
    for (;;) {
      const since = yield* options.linkedSince
      if (since !== null && since !== registeredFor) {
        const said = yield* Effect.exit(
          say({ stream, id: `register/${options.host}/${start}/${since}`, message })
        )
        if (said._tag === "Success") {
          registeredFor = since
          yield* Effect.forkChild(tellMachines)
        } else yield* Effect.logWarning(`not registered yet: ${said.cause}`)
      }
      yield* Effect.sleep(watchMs)
    }
  })
  yield* Effect.all([register, forward], { concurrency: 2, discard: true })
})

const registerKind = "agent.register"
const backAfterMs = 2000

const askToRegister = (link: Link["Service"], host: string): Effect.Effect<void> =>
  Effect.ignore(Effect.timeout(Stream.runDrain(link.call(host, registerKind, {})), watchMs))

/**
 * At a host: whoever has a kernel may ask it to register again. Gives how often it was asked, which is to be a part of
 * `linkedSince`.
 */
export const serveRegistering = Effect.fn("serveRegistering")(function* (
  kernels: () => ReadonlyArray<string>
) {
  const link = yield* Link
  let asked = 0
  yield* link.serve(registerKind, (peer) =>
    Stream.fromEffect(
      kernels().includes(peer)
        ? Effect.sync(() => ({ asked: ++asked }))
        : Effect.fail(new HandlerFailed({ reason: `${peer} has no kernel` }))
    )
  )
  return Effect.sync(() => asked)
})

/** At the node whose kernel performs: a registered host whose link is down for `lostAfterMs` is lost. */
export const watchHosts = Effect.fn("watchHosts")(function* (
  node: string,
  own: ReadonlySet<string>,
  lostAfterMs: number
) {
  const kernel = yield* Kernel
  const link = yield* Link
  const downSince = new Map<string, number>()
  const backSince = new Map<string, number>()
  for (;;) {
    if (!kernel.isPerforming()) {
      // Whoever performs next gives every host its time anew.
      downSince.clear()
      backSince.clear()
      yield* Effect.sleep(watchMs)
      continue
    }
    const now = yield* Clock.currentTimeMillis
    const connected = new Set(
      (yield* link.peers).filter((peer) => peer.state === "connected").map((peer) => peer.node)
    )
    for (const actor of kernel.resident().values()) {
      if (!actor.stream.startsWith("host/")) continue
      const host = actor.stream.slice("host/".length)
      const isLost = actor.chart.value === "lost"
      const gone = !own.has(host) && !connected.has(host) && !isLost
      // It registers by itself when its link is new. When somebody else had lost it, it does not know.
      if (!isLost || !connected.has(host)) backSince.delete(host)
      else if (!backSince.has(host)) backSince.set(host, now)
      else if (now - (backSince.get(host) ?? now) >= backAfterMs) {
        backSince.delete(host)
        yield* askToRegister(link, host)
      }
      if (!gone) downSince.delete(host)
      else if (!downSince.has(host)) downSince.set(host, now)
      else if (now - (downSince.get(host) ?? now) >= lostAfterMs) {
        const reason = `no link for ${Math.round(lostAfterMs / 1000)} s`
        const id = `lose/${host}/${downSince.get(host)}`
        const said: Said = { stream: actor.stream, id, message: { type: "host.lose", reason } }
        yield* kernel.submit(commandOf(node, said)).pipe(Effect.ignore)
        downSince.delete(host)
      }
    }
    yield* Effect.sleep(watchMs)
  }
})
