/**
 * Which machines leave which hosts: from what the hosts have promised, and from what was decided before. Where they go is decided by
 * a placement, as for any migration. Margin, hold and cooldown keep it from moving for what passes by itself, and from moving the
 * same again and again (as the DRS of VMware and the rebalancers of the field do); of the machines whose going is enough, the one
 * with the least memory is moved, which costs least.
 */
import type {
  HostLoad,
  Loads,
  Move,
  RebalanceDecision,
  RebalancePolicy,
  RebalancerState
} from "../../events/rebalancer.ts"

/** Of a host, in points: less is not worth a transfer. */
const worthPercent = 1
const points = (value: number): number => Math.round(value * 10) / 10

/** Machines that were moved and are remembered: of more, those that were moved last. */
const moved_max = 1000

/** Those that may not move yet. */
const stillCooling = (
  moved: RebalancerState["moved"],
  cooldownMs: number,
  nowMs: number
): RebalancerState["moved"] =>
  Object.fromEntries(Object.entries(moved).filter(([, atMs]) => nowMs - atMs < cooldownMs))

type Machine = HostLoad["machines"][number]

/** Who goes from a host that is `above` points above the mean; a text says why nobody does. */
function whoGoes(
  { machines }: HostLoad,
  above: number,
  marginPercent: number,
  cooling: RebalancerState["moved"]
): Machine | string {
  if (machines.length === 0) return "no machine runs there that is not moving"
  const rested = machines.filter(({ vm }) => cooling[vm] === undefined)
  if (rested.length === 0) return `all ${machines.length} machines were moved a short while ago`
  // One that is larger would leave the host below the mean, and the next one above it.
  const fitting = rested.filter(({ percent }) => percent >= worthPercent && percent <= above)
  const [first] = fitting
  if (first === undefined) return `none of ${rested.length} machines is of a size that helps`
  const enough = fitting.filter(({ percent }) => percent >= above - marginPercent)
  if (enough.length > 0) return enough.reduce((least, one) => (one.memoryMib < least.memoryMib ? one : least))
  return fitting.reduce((most, one) => (one.percent > most.percent ? one : most), first)
}

export function decideRebalance(
  { policy, held, moved, moves }: RebalancerState & { readonly policy: RebalancePolicy },
  loads: Loads,
  nowMs: number
): RebalanceDecision {
  const { marginPercent, hold, movesAtOnce, cooldownMs, shadow } = policy
  const { hosts, meanPercent, most, position } = loads
  const cooling = stillCooling(moved, cooldownMs, nowMs)
  const decided: Array<Move> = []
  const tooFull: Array<RebalanceDecision["tooFull"][number]> = []
  for (const load of most) {
    const above = load.percent - meanPercent
    if (above <= marginPercent) continue
    const times = (held[load.host] ?? 0) + 1
    const row = { host: load.host, percent: points(load.percent), held: times }
    const one =
      times < hold
        ? `${times} of ${hold} looks`
        : decided.length >= movesAtOnce
          ? `${movesAtOnce} others are moved first`
          : whoGoes(load, above, marginPercent, cooling)
    if (typeof one === "string") {
      tooFull.push({ ...row, stays: one })
      continue
    }
    tooFull.push({ ...row, stays: null })
    const migration = `rebalance-${moves + decided.length + 1}`
    const percent = points(one.percent)
    const reason = `${load.host} has promised ${row.percent} % and the hosts ${points(meanPercent)} % in the mean: ${one.vm} is ${percent} points of it`
    decided.push({ vm: one.vm, from: load.host, migration, percent, reason })
  }
  const counts = `${tooFull.length} of ${hosts} hosts have promised more than ${marginPercent} points above ${points(meanPercent)} %`
  return {
    ...{ viewPosition: position, hosts, meanPercent: points(meanPercent), tooFull, moves: decided, shadow },
    reason: hosts < 2 ? `${hosts} hosts are up, and it takes two` : counts
  }
}

function latest(moved: RebalancerState["moved"]): RebalancerState["moved"] {
  const all = Object.entries(moved)
  if (all.length <= moved_max) return moved
  return Object.fromEntries(all.sort(([, a], [, b]) => b - a).slice(0, moved_max))
}

/** What was only said to move in the shadow may be moved at once when it is meant. */
export const afterShadow = ({ policy, moved }: RebalancerState): RebalancerState["moved"] =>
  policy?.shadow === true ? {} : moved

/** After a decision: a host from which a machine goes is looked at anew, as often as it takes. */
export function afterDecision(
  context: RebalancerState,
  decision: RebalanceDecision,
  nowMs: number
): Omit<RebalancerState, "policy"> {
  const { tooFull, moves } = decision
  const cooling = stillCooling(context.moved, context.policy?.cooldownMs ?? 0, nowMs)
  return {
    held: Object.fromEntries(tooFull.map(({ host, held, stays }) => [host, stays === null ? 0 : held])),
    moved: latest({ ...cooling, ...Object.fromEntries(moves.map(({ vm }) => [vm, nowMs])) }),
    moves: context.moves + moves.length,
    last: { ...decision, timeMs: nowMs }
  }
}
