/** One owner for each machine: at no time does it run twice, and in the end it runs where its actor says, and nowhere else. */
import { hostsOf, vmsOf } from "./fleet.ts"
import type { Seen } from "./fleet.ts"
import { Violation } from "./violation.ts"

/** After every event. */
export function runsOnce({ fleet }: Pick<Seen, "fleet">): void {
  const running = new Map<string, string>()
  for (const { name, machines } of fleet.hosts.values())
    for (const { vm, state } of machines.values()) {
      if (state !== "running") continue
      const other = running.get(vm)
      if (other !== undefined) throw new Violation("one-owner", `${vm} runs on ${other} and on ${name}`)
      running.set(vm, name)
    }
}

const expected: Readonly<Record<string, ReadonlyArray<string>>> = {
  running: ["running"],
  // A guest that waits for its host to say how it is stays as it was.
  paused: ["paused", "handed-over", "incoming"],
  stopped: ["defined"]
}

/** When all is quiet: every machine is where its actor says, as it says, and nothing lies where nobody knows of it. */
export function isWhereItBelongs(seen: Seen): void {
  const places = new Map<string, string>()
  for (const { vm, state, context } of vmsOf(seen)) {
    if (context.host === null) continue
    places.set(`${context.host}/${vm}`, state)
    const there = seen.fleet.hosts.get(context.host)?.machines.get(vm)
    // `lost.ts` looks at those.
    if (there === undefined) continue
    const allowed = expected[state.slice(0, `${state}.`.indexOf("."))]
    if (allowed === undefined) throw new Violation("liveness", `${vm} stays ${state}`)
    if (!allowed.includes(there.state))
      throw new Violation("one-owner", `${vm} is ${state}, and ${context.host} has it ${there.state}`)
  }
  // What could not be removed yet is known to the host's actor, and removed when the host takes part again.
  const leftovers = new Map(hostsOf(seen).map((host) => [host.name, host.leftovers]))
  for (const { name, machines } of seen.fleet.hosts.values())
    for (const { vm, state } of machines.values())
      if (!places.has(`${name}/${vm}`) && leftovers.get(name)?.[vm] === undefined)
        throw new Violation("one-owner", `${vm} lies on ${name}, ${state}, and belongs elsewhere`)
}
