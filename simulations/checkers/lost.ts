/** No machine is lost: when all is quiet each is there where its actor says, or nobody could take it, and that was said. */
import { vmsOf } from "./fleet.ts"
import type { Seen, VmSeen } from "./fleet.ts"
import { Violation } from "./violation.ts"

const ends = ["created", "placed", "handedOver", "deleteRequested", "deleted"].map(
  (type) => `novacron.vm.${type}`
)

export function noneIsLost(seen: Seen): void {
  const last = lastEnds(seen)
  for (const machine of vmsOf(seen)) {
    const { vm, state, context } = machine
    const said = last.get(`vm/${vm}`)
    if (context.host === null) {
      restsWithoutHost(machine, said)
      continue
    }
    if (seen.fleet.hosts.get(context.host)?.machines.has(vm) === true) continue
    // Its host said that it could not remove it, and had done so: it is to be removed again.
    if (state.startsWith("stopped") && said === "novacron.vm.deleteRequested") continue
    throw new Violation("no-machine-lost", `${vm} is ${state} on ${context.host}, which does not have it`)
  }
}

/** By stream: which of `ends` was recorded last. */
function lastEnds({ facts }: Seen): ReadonlyMap<string, string> {
  const last = new Map<string, string>()
  for (const { stream, type } of facts) if (ends.includes(type)) last.set(stream, type)
  return last
}

/** Nothing is under way any more: who has no host then, and is neither deleted nor told that there is none, was forgotten. */
function restsWithoutHost({ vm, state, context, outstanding }: VmSeen, said: string | undefined): void {
  const isThere = said !== undefined && said !== "novacron.vm.deleted"
  if (state !== (isThere ? "unplaced" : "absent"))
    throw new Violation(
      "no-machine-lost",
      `${vm} stays ${state} on no host, and nobody does anything about it`
    )
  // It is tried for eight hours, which no run lasts.
  const isTriedAgain = outstanding.some(({ request }) => request.port === "timer")
  if (context.recovering > 0 && !isTriedAgain)
    throw new Violation("no-machine-lost", `${vm} left a fenced host, and is not tried elsewhere again`)
}
