/** What can be simulated, and a sentence on each: so little that a command can say it without the simulator. */

export const abouts = {
  raft: "a group that agrees, with crashes, partitions, bad disks and clocks, and changes of its members",
  swim: "members that find out who is there",
  fleet: "the kernel and its hosts, with operators and faults",
  fencing: "the same with leases, watchers and clocks that drift: machines of lost hosts start elsewhere",
  cluster:
    "nodes that vote, with their kernels, journals and hosts: crashes, cuts, disks, clocks, and changes of who votes",
  scale: "a week of a large fleet, of a hundred hosts or of ten thousand (--hosts), ten machines to each",
  swarm: "each seed draws which of the others, but scale, it is, and everything in it"
} as const

export type ScenarioName = keyof typeof abouts
