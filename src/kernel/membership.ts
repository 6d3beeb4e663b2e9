/**
 * How a host takes part, in any world: it registers, tells how it has its machines, and says what ended there. The
 * kernel's side holds that against the journal. `src/live/membership.ts` carries it over links.
 */
import { Clock, Effect, Random, Schedule, Schema, Stream } from "effect"
import { Name, Stream as StreamName, text } from "../events/fields.ts"
import { HostCommand } from "../events/host.ts"
import type { Message } from "../events/envelope.ts"
import { NodeReport } from "../events/node.ts"
import { VmCommand, VmState } from "../events/vm.ts"
import { HostAgent } from "./agent.ts"
import { Kernel } from "./kernel.ts"
import { afterRegistering, beforeRegistering } from "./lease.ts"
import type { LeaseKeeping } from "./lease.ts"
import { Hypervisor } from "./ports/hypervisor.ts"
import type { SubmitError } from "./refusals.ts"

export const Said = Schema.Struct({
  stream: StreamName,
  id: text(256),
  message: Schema.Union([HostCommand, VmCommand, NodeReport])
})
export type Said = typeof Said.Type
/** All machines that lie on a host, as its hypervisor has them. */
export const Machines = Schema.Struct({
  host: Name,
  machines: Schema.Array(Schema.Struct({ vm: Name, state: VmState })).check(Schema.isMaxLength(10_000))
})
export type Machines = typeof Machines.Type

export const commandOf = (node: string, { stream, id, message }: Said) => ({
  stream,
  message: message as Message,
  id,
  correlation: id,
  principal: { kind: "node" as const, name: node }
})

const reconciledAtOnce = 16
/** How long a machine's actor may be at something before it hears how its host has it: then the host is asked anyway. */
const observePauseMs = 1000
const observeTries = 60

/** What is read here of the actors' states. */
interface Placed {
  readonly host: string | null
  readonly migration: string | null
}
interface Promised {
  readonly reservations: Readonly<Record<string, { readonly vm: string }>>
  readonly leftovers: Readonly<Record<string, string>>
}

/** Refused for what is under way and not because the machine is as it should be, or not heard at all. */
const isHeardLater = (error: SubmitError): boolean =>
  error._tag === "CommandRefused"
    ? !error.allowed.includes("vm.observe")
    : error._tag === "Overloaded" || error._tag === "StoreFailure"

/**
 * Hold what lies on a host against the journal. Each machine that is said to be there, or has its room there, is told how
 * its host has it, and asks the host itself when that differs. What the journal does not know there is named and left
 * alone: after a journal was restored from a backup it may be the only copy.
 */
export const reconcile = Effect.fnUntraced(function* (
  kernel: Kernel["Service"],
  node: string,
  { host, machines }: Machines
) {
  // In a group this kernel may be behind, or not of it any more: what it takes for so may be over.
  yield* kernel.fresh
  const found = new Map(machines.map(({ vm, state }) => [vm, state]))
  const actors = kernel.resident()
  const { leftovers = {}, reservations = {} } = (actors.get(`host/${host}`)?.chart.context ??
    {}) as Partial<Promised>
  const observed: Array<Said> = []
  const id = `observe/${host}/${yield* Clock.currentTimeMillis}`
  // The machines that have room here, and not all there are: hosts come back often, and together.
  const here = new Set([...Object.values(reservations).map(({ vm }) => vm), ...found.keys()])
  for (const vm of here) {
    const stream = `vm/${vm}`
    const actor = actors.get(stream)
    if (actor === undefined) continue
    const own = actor.chart.context as Placed
    // While it moves its migration asks for it.
    if (own.migration !== null) found.delete(vm)
    if (own.host !== host) continue
    const message = { type: "vm.observe" as const, host, state: found.get(vm) ?? ("absent" as const) }
    observed.push({ stream, id: `${id}/${vm}`, message })
    found.delete(vm)
  }
  const told = (said: Said) =>
    kernel.submit(commandOf(node, said)).pipe(
      Effect.retry({
        while: isHeardLater,
        schedule: Schedule.max([Schedule.spaced(observePauseMs), Schedule.recurs(observeTries)])
      }),
      // Who has it decided by nobody, perhaps for good because it was removed meanwhile, keeps no host: that asks another node.
      Effect.catch((error) => (error._tag === "Unavailable" ? Effect.fail(error) : Effect.void))
    )
  yield* Effect.forEach(observed, told, { concurrency: reconciledAtOnce, discard: true })
  const unknown = [...found.keys()].filter((vm) => leftovers[vm] === undefined)
  if (unknown.length > 0) {
    const named = unknown.slice(0, 20).join(", ")
    yield* Effect.logWarning(
      `${unknown.length} machines on ${host} have no place there in the journal: ${named}`
    )
  }
})

export type Say = (said: Said | Machines) => Effect.Effect<void, { readonly message: string }>

/**
 * Take what a host says. A caller with a command is kept waiting while a group finds a leader; a host has other nodes to ask, of
 * which one may be on the side of the majority, and is told at once.
 */
export const hear = (
  kernel: Kernel["Service"],
  node: string,
  said: Said | Machines
): Effect.Effect<void, { readonly message: string }> =>
  Effect.suspend((): Effect.Effect<void, { readonly message: string }> => {
    if (!kernel.knowsLeader()) return Effect.fail({ message: "this node hears no leader: ask another one" })
    if ("machines" in said) return reconcile(kernel, node, said)
    return Effect.asVoid(kernel.submit(commandOf(node, said)))
  })

/** Say it to one after the other until one takes it, first to the one that did so last. */
export const sayToAny = (
  nodes: () => ReadonlyArray<string>,
  sayTo: (node: string, said: Said | Machines) => ReturnType<Say>
): Say => {
  let last = ""
  return (said) =>
    Effect.suspend(() => {
      const known = nodes()
      const inTurn = [...known.filter((node) => node === last), ...known.filter((node) => node !== last)]
      const none: ReturnType<Say> = Effect.fail({ message: "no node with a kernel is known" })
      return inTurn.reduce(
        (tried, node) =>
          tried.pipe(
            Effect.catch(() =>
              Effect.tap(
                sayTo(node, said),
                Effect.sync(() => (last = node))
              )
            )
          ),
        none
      )
    })
}

/** Say it to the kernel in this process. */
export const sayHere = Effect.fn("sayHere")(function* (node: string) {
  const kernel = yield* Kernel
  const say: Say = (said) =>
    "machines" in said ? reconcile(kernel, node, said) : Effect.asVoid(kernel.submit(commandOf(node, said)))
  return say
})

export interface RegisterOptions {
  readonly host: string
  readonly address: string
  readonly labels: Readonly<Record<string, string>>
  /** Changes when the link to the kernel's node is a new one; a constant where the kernel is in this process. */
  readonly linkedSince: Effect.Effect<number | string | null>
  /** Left out where no lease is asked for. */
  readonly lease?: LeaseKeeping
}

/** A link that is new is noticed within this. */
export const watchMs = 250
const endedTries = 60

/** Say which machines the watcher has ended; what is not taken is said at the next registration. */
const tellLeaseEnd = (say: Say, stream: string, { ended, told }: LeaseKeeping) =>
  Effect.flatMap(ended, (vms) =>
    vms.length === 0
      ? Effect.void
      : Effect.flatMap(Clock.currentTimeMillis, (now) =>
          say({
            stream,
            id: `lease-end/${stream}/${now}`,
            message: { type: "host.reportLeaseEnd", vms: vms.slice(0, 10_000) }
          })
        ).pipe(Effect.andThen(told(vms)))
  ).pipe(Effect.catch((error) => Effect.logWarning(`what the watcher ended was not told: ${error.message}`)))

/** Ends when it is so, and after so many looks anyway. */
const awaits = (isSo: () => boolean, looks: number): Effect.Effect<void> =>
  Effect.suspend(() =>
    isSo() || looks === 0 ? Effect.void : Effect.andThen(Effect.sleep(watchMs), awaits(isSo, looks - 1))
  )

/** A minute: longer than a host that comes back is without a lease. */
const leaseLooks = 240

/**
 * Ends when this host may start machines: what is told of them before has them started again here, and refused, and they would stay
 * stopped. Without a lease for long it is told all the same.
 */
const mayStart = (lease: LeaseKeeping | undefined): Effect.Effect<void> =>
  lease === undefined ? Effect.void : awaits(() => lease.lease.mayRun()(), leaseLooks)

/** How many ends of guests are being told. */
interface Ends {
  open: number
}
const endsLooks = 40

/** An end is told before how all machines are: that has those that don't run started again, and the end of before would be taken for theirs. */
const endsTold = (ends: Ends): Effect.Effect<void> => awaits(() => ends.open === 0, endsLooks)

/** What to tell the actors of machines whose guest ended by itself, until interrupted. */
const forwardEnds = (
  say: Say,
  { host, lease }: RegisterOptions,
  ends: Ends,
  agent: HostAgent["Service"],
  hypervisor: Hypervisor["Service"]
) =>
  agent.ended.pipe(
    Stream.runForEach((message) => {
      const { vm, command } = message
      ends.open++
      return Effect.gen(function* () {
        const id = `ended/${host}/${vm}/${yield* Clock.currentTimeMillis}`
        // Refused while the machine is between two places: asked again, within a limit. Once it runs again that is over: its
        // actor knew, and the end of its next life would be told of as well.
        const isOver = Effect.map(hypervisor.observe(vm), (state) => state === "running").pipe(
          Effect.orElseSucceed(() => false)
        )
        const told = say({ stream: `vm/${vm}`, id, message: command })
        yield* mayStart(lease).pipe(
          Effect.andThen(isOver),
          Effect.flatMap((over) => (over ? Effect.void : told)),
          Effect.retry({
            schedule: Schedule.max([Schedule.spaced("1 second"), Schedule.recurs(endedTries)])
          }),
          Effect.catch((error) => Effect.logWarning(`the end of ${vm} was not taken: ${error.message}`)),
          Effect.ensuring(Effect.sync(() => ends.open--)),
          Effect.forkScoped
        )
      })
    }),
    Effect.scoped
  )

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
  const start = `${yield* Clock.currentTimeMillis}-${yield* Random.nextIntBetween(0, 2 ** 31)}`
  const stream = `host/${options.host}`
  const { lease } = options
  const saysOf = (lengthMs: number | null) => ({
    type: "host.register" as const,
    address: options.address,
    facts: { ...found, labels: options.labels, ...(lengthMs === null ? {} : { lease: { lengthMs } }) }
  })

  const ends: Ends = { open: 0 }
  const forward = forwardEnds(say, options, ends, agent, hypervisor)
  const tellMachines = mayStart(lease).pipe(
    Effect.andThen(endsTold(ends)),
    Effect.andThen(hypervisor.list),
    Effect.flatMap((machines) => say({ host: options.host, machines })),
    Effect.retry({
      schedule: Schedule.max([Schedule.spaced(observePauseMs), Schedule.recurs(observeTries)])
    }),
    Effect.catch((error) => Effect.logWarning(`what lies on ${options.host} was not told: ${error.message}`))
  )
  const register = Effect.gen(function* () {
    let registeredFor: number | string | null = null
    let registered = 0
    for (;;) {
      const linked = yield* options.linkedSince
      const lengthMs = lease === undefined ? null : yield* lease.lengthMs
      const since = linked === null || lengthMs === null ? linked : `${linked}/${lengthMs}`
      if (since !== null && since !== registeredFor) {
        if (lease !== undefined) yield* beforeRegistering(lease, lengthMs)
        const said = yield* Effect.exit(
          say({
            stream,
            // Another one each time: with and without a lease may come in turns.
            id: `register/${options.host}/${start}/${since}/${registered}`,
            message: saysOf(lengthMs)
          })
        )
        if (said._tag === "Success") {
          registeredFor = since
          registered++
          if (lease !== undefined) {
            yield* afterRegistering(lease, lengthMs)
            yield* Effect.forkChild(tellLeaseEnd(say, stream, lease))
          }
          yield* Effect.forkChild(tellMachines)
        } else yield* Effect.logWarning(`not registered yet: ${said.cause}`)
      }
      yield* Effect.sleep(watchMs)
    }
  })
  yield* Effect.all([register, forward], { concurrency: 2, discard: true })
})
