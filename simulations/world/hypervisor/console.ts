/** The console of a simulated machine: it tells the guest's count, gives back what is typed, and says what it is. */
import { Clock, Effect, Queue, Stream } from "effect"
import type { Cause } from "effect"
import { HypervisorError } from "../../../src/kernel/ports/hypervisor.ts"
import { advance } from "./machine.ts"
import type { Fleet, SimHost } from "./machine.ts"

export interface SimConsole {
  /** Ends when the machine stops, or has gone to another host. */
  readonly output: Stream.Stream<Uint8Array>
  readonly write: (octets: Uint8Array) => Effect.Effect<void>
}

const encoder = new TextEncoder()
const lineEveryMs = 100
/** Typed and not yet given back. */
const typed_max = 64

const notRunning = (vm: string, reason: string) =>
  Effect.fail(new HypervisorError({ op: "console", vm, code: "wrong-state", reason }))

/** Where the path of a console leads. */
export const consolePath = (host: string, vm: string): string => `sim:${host}/${vm}/console`

const hasConsole = (host: SimHost, vm: string): boolean => {
  const state = host.machines.get(vm)?.state
  return state !== undefined && state !== "defined"
}

/** Connect to the console of a machine that runs, is paused, or is arriving. */
export const openConsole = (fleet: Fleet, hostName: string, vm: string) =>
  Effect.gen(function* () {
    const host = fleet.hosts.get(hostName)
    if (host === undefined || !hasConsole(host, vm)) {
      return yield* notRunning(vm, `${vm} does not run on ${hostName}`)
    }
    const typed = yield* Queue.bounded<Uint8Array, Cause.Done>(typed_max)
    const opening = `[simulated] console of ${vm} on ${hostName}; no machine is behind it\r\n`
    let told = -1
    const count = Effect.gen(function* () {
      yield* Effect.sleep(lineEveryMs)
      const machine = host.machines.get(vm)
      if (machine === undefined || !hasConsole(host, vm) || machine.state === "handed-over") {
        yield* Queue.end(typed)
        return null
      }
      const now = advance(machine, yield* Clock.currentTimeMillis)
      if (machine.state !== "running" || now === told) return ""
      told = now
      return `[simulated] tick ${now}\r\n`
    })
    const ticks = Stream.fromEffectRepeat(count).pipe(
      Stream.takeWhile((line) => line !== null),
      Stream.filter((line) => line !== ""),
      Stream.map((line) => encoder.encode(line))
    )
    const output = Stream.concat(
      Stream.make(encoder.encode(opening)),
      Stream.merge(ticks, Stream.fromQueue(typed))
    )
    const made: SimConsole = { output, write: (octets) => Effect.asVoid(Queue.offer(typed, octets)) }
    return made
  })
