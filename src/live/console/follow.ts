/**
 * Keeps one connection to a machine's console wherever the machine is. Before a migration hands it over, the console
 * at the destination is connected too, and read only from the moment in which the machine belongs there: what the
 * guest says there meanwhile waits in the sockets, and comes after what it said at the source.
 */
import { Effect, Exit, Scope, Stream } from "effect"
import type { Context } from "effect"
import type { Kernel } from "../../kernel/kernel.ts"
import type { ConsoleLink, ConsolePlace, Consoles } from "../../kernel/ports/consoles.ts"
import { describe } from "../../kernel/statechart.ts"

export interface FollowPorts {
  readonly kernel: Context.Service.Shape<typeof Kernel>
  readonly consoles: Consoles["Service"]
}

export interface Listener {
  readonly connected: (link: ConsoleLink, host: string) => void
  /** What is typed has to wait until it is connected again. */
  readonly hold: () => void
  readonly output: (octets: Uint8Array) => void
}

export interface FollowEnd {
  readonly cause: "ended" | "lost"
  readonly reason: string
}

interface Connection {
  readonly place: ConsolePlace
  readonly link: ConsoleLink
  readonly scope: Scope.Closeable
}

interface Running extends Connection {
  hasEnded: boolean
  wasHeard: boolean
}

/** Where the machine is now, and where it will be; `null` while it is on its way into being. */
interface Whereabouts {
  readonly state: string
  readonly here: ConsolePlace | null
  readonly ahead: ConsolePlace | null
  /** It stands still here, or runs there already: nothing is to be typed into the old one. */
  readonly leaving: boolean
}

/** The actors are in memory, so that a look costs next to nothing. */
const lookEveryMs = 50
/** Looks at a machine whose console can't be connected, before it is given up: 10 s. */
const looks_max = 200
/** Looks after the console has ended, before it counts as broken and not as that of a machine that left. */
const looksAfterEnd = 4

const withGuest = new Set(["running", "paused", "resuming", "stopping", "migrating"])
const soonWithGuest = new Set(["starting", "placing", "defining"])
const destinationReady = new Set(["transferring", "switching", "changingOwner"])

interface VmContext {
  readonly host: string | null
  readonly migration: string | null
}
interface MoveContext {
  readonly to: string | null
  readonly address: string
}

const top = (state: string) => state.split(".")[0] ?? ""

const whereIs = Effect.fnUntraced(function* ({ kernel }: FollowPorts, vm: string) {
  const nowhere = (state: string): Whereabouts => ({ state, here: null, ahead: null, leaving: false })
  const actor = yield* Effect.option(kernel.state(`vm/${vm}`))
  if (actor._tag === "None") return nowhere("unknown")
  const state = top(describe(actor.value.chart))
  const { host, migration } = actor.value.chart.context as VmContext
  if (host === null || !withGuest.has(state)) return nowhere(state)
  const hostActor = yield* Effect.option(kernel.state(`host/${host}`))
  if (hostActor._tag === "None") return nowhere("unknown")
  const { address } = hostActor.value.chart.context as { address: string }
  const here = { vm, host, address }
  const moving = migration === null ? null : yield* Effect.option(kernel.state(`migration/${migration}`))
  if (moving?._tag !== "Some") return { state, here, ahead: null, leaving: false }
  const move = moving.value.chart.context as MoveContext
  const phase = top(describe(moving.value.chart))
  if (move.to === null || move.to === host || !destinationReady.has(phase)) {
    return { state, here, ahead: null, leaving: false }
  }
  const ahead = { vm, host: move.to, address: move.address }
  return { state, here, ahead, leaving: phase !== "transferring" }
})

const connect = (ports: FollowPorts, place: ConsolePlace, parent: Scope.Scope) =>
  Effect.gen(function* () {
    const scope = yield* Scope.fork(parent)
    const link = yield* ports.consoles.open(place).pipe(
      Scope.provide(scope),
      Effect.onError(() => Scope.close(scope, Exit.void))
    )
    const connection: Connection = { place, link, scope }
    return connection
  })

const disconnect = (connection: Connection | null) =>
  connection === null ? Effect.void : Scope.close(connection.scope, Exit.void)

const same = (a: ConsolePlace | null | undefined, b: ConsolePlace | null | undefined) => a?.host === b?.host

/** Look until the machine is elsewhere, or without a guest. Gives the connection to where it is now, when there is one. */
const moved = (ports: FollowPorts, current: Running, listener: Listener, scope: Scope.Scope) =>
  Effect.gen(function* () {
    let next: Connection | null = null
    for (let idle = 0; idle < looksAfterEnd;) {
      const now: Whereabouts = yield* whereIs(ports, current.place.vm)
      if (!same(now.here, current.place)) {
        if (next !== null && same(next.place, now.here)) return next
        yield* disconnect(next)
        return null
      }
      if (now.leaving) listener.hold()
      if (next !== null && !same(next.place, now.ahead)) {
        yield* disconnect(next)
        next = null
      } else if (next === null && now.ahead !== null) {
        const opened = yield* Effect.option(connect(ports, now.ahead, scope))
        next = opened._tag === "Some" ? opened.value : null
      }
      if (current.hasEnded && now.ahead === null) idle++
      yield* Effect.sleep(lookEveryMs)
    }
    yield* disconnect(next)
    return null
  })

/** Runs until the machine has no console any more, or none can be connected; says which, and why. */
export const follow = (
  ports: FollowPorts,
  vm: string,
  listener: Listener
): Effect.Effect<FollowEnd, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    let connection: Connection | null = null
    let reason = "it could not be connected"
    for (let looks = 0; looks < looks_max; looks++) {
      const now: Whereabouts = yield* whereIs(ports, vm)
      if (now.here === null && !soonWithGuest.has(now.state)) {
        return { cause: "ended", reason: `vm/${vm} is ${now.state}` }
      }
      if (connection === null && now.here !== null) {
        const opened = yield* Effect.result(connect(ports, now.here, scope))
        if (opened._tag === "Success") connection = opened.success
        else reason = opened.failure.message
      }
      if (connection === null) {
        yield* Effect.sleep(lookEveryMs)
        continue
      }
      const current: Running = { ...(connection as Connection), hasEnded: false, wasHeard: false }
      listener.connected(current.link, current.place.host)
      const pumped = current.link.output.pipe(
        Stream.runForEach((octets) =>
          Effect.sync(() => {
            current.wasHeard = true
            listener.output(octets)
          })
        ),
        Effect.ignore,
        // Where the machine is then is for the looks to find out.
        Effect.andThen(Effect.sync(() => (current.hasEnded = true))),
        Effect.andThen(Effect.never)
      )
      connection = yield* Effect.raceFirst(pumped, moved(ports, current, listener, scope))
      listener.hold()
      yield* disconnect(current)
      if (current.wasHeard || connection !== null) looks = 0
    }
    return { cause: "lost", reason }
  })
