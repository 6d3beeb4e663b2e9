/** What was done to a simulated cluster, and what it did, as numbers. */
import type { ClusterChecker, Revisions } from "../checkers/cluster.ts"
import type { Journals } from "../checkers/journals.ts"
import type { Marks } from "../checkers/marks.ts"
import type { Patience } from "../checkers/patience.ts"
import type { Fleet } from "../world/hypervisor.ts"
import { hypervisorCounts, hypervisorFaults } from "../world/hypervisor/machine.ts"
import { noPartitions } from "../world/network.ts"
import type { WireCounts } from "../world/wires.ts"
import type { Clients } from "./clients.ts"
import { allCounted } from "./fault.ts"
import type { Faults } from "./faults.ts"
import type { ClusterHost } from "./host.ts"
import type { Nemesis } from "./nemesis.ts"
import type { ClusterNode } from "./node.ts"
import type { Saying } from "./saying.ts"
import type { Watch } from "./watch.ts"

interface World {
  readonly nodes: ReadonlyMap<string, ClusterNode>
  readonly hosts: ReadonlyMap<string, ClusterHost>
  readonly fleet: Fleet
  readonly wires: { readonly counts: WireCounts }
  readonly faults: Faults
  readonly nemesis: Nemesis
  readonly clients: Clients
  readonly checker: ClusterChecker
  readonly journals: Journals
  readonly revisions: Revisions
  readonly watch: Watch
  readonly saying: Saying
  readonly marks: Marks
  readonly patience: Patience
}

export const injected: ReadonlyArray<string> = [
  ...allCounted,
  ...Object.keys(noPartitions()),
  ...["writeErrors", "syncErrors", "fullErrors"],
  ...["blackouts", "duplicated", "crossed", "overtaken", "held", "lost", "stalls", "lostFacts", "tornWrites"],
  ...["transactionsLost", "journalErrors", "losses", "answersLost"],
  ...hypervisorFaults
]

export function countsOf(world: World): Record<string, number> {
  const {
    nodes,
    hosts,
    fleet,
    wires,
    faults,
    nemesis,
    clients,
    checker,
    journals,
    revisions,
    watch,
    saying,
    marks,
    patience
  } = world
  const all = [...nodes.values()]
  const sum = (of: (node: ClusterNode) => number) => all.reduce((total, node) => total + of(node), 0)
  const lines = [
    ...all.map(({ line }) => line),
    ...[...hosts.values()].flatMap((host) => [...host.lines.values()])
  ]
  return {
    ...wires.counts,
    ...faults.counts,
    ...nemesis.partitions,
    ...hypervisorCounts(fleet),
    restarts: faults.restarts,
    blackouts: nemesis.blackouts,
    losses: watch.losses,
    syncs: sum(({ disk }) => disk.counts.syncs),
    stalls: sum(({ disk }) => disk.counts.stalls),
    lostFacts: sum(({ disk }) => disk.counts.lostFacts),
    tornWrites: sum(({ disk }) => disk.counts.tornWrites),
    writeErrors: sum(({ disk }) => disk.counts.writeErrors),
    syncErrors: sum(({ disk }) => disk.counts.syncErrors),
    fullErrors: sum(({ disk }) => disk.counts.fullErrors),
    rewrites: sum(({ disk }) => disk.rewrites),
    transactions: sum(({ journal }) => journal.counts.transactions),
    transactionsLost: sum(({ journal }) => journal.counts.transactionsLost),
    journalErrors: sum(({ journal }) => journal.counts.journalErrors),
    answersLost: lines.reduce((total, line) => total + line.answersLost, 0),
    halts: sum(({ halts }) => halts),
    outs: sum(({ isOut }) => Number(isOut)),
    elections: checker.elections,
    decided: checker.decided,
    facts: journals.facts.length,
    commands: clients.operators.issued.length,
    ...clients.counts,
    ...saying.counts,
    ...Object.fromEntries(Object.entries(clients.asked).map(([op, count]) => [`${op} asked`, count])),
    answersLooked: revisions.looked,
    marksLooked: marks.looked,
    askersLooked: patience.looked
  }
}
