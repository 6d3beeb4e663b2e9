/** Planted mistakes of leases, fencing and restarts elsewhere, which the simulated fleet with leases has to find. */
import type { Mutant } from "./mutants.ts"

export const fencingMutants: ReadonlyArray<Mutant> = [
  {
    name: "restart-before-the-fence",
    seed: 6,
    story: "a lost host is fenced at once, whatever lease it holds",
    edits: [
      {
        file: "src/kernel/fencing.ts",
        find: "const waitMs = fencingWaitMs(lengthMs, marginMs)",
        put: "const waitMs = 0 * fencingWaitMs(lengthMs, marginMs)"
      }
    ]
  },
  {
    name: "new-leader-does-not-wait",
    seed: 178,
    story: "a kernel that newly leads waits as if nobody before it could still give leases",
    edits: [
      {
        file: "src/kernel/fencing.ts",
        find: "this.#ledSinceMs + handOverMs)",
        put: "this.#ledSinceMs + handOverMs * 0)"
      }
    ]
  },
  {
    name: "returning-host-goes-on",
    seed: 90,
    story: "a host that is back does what it was asked before it was fenced, lease or not",
    edits: [
      {
        file: "src/kernel/lease.ts",
        find: "(lapses === this.#lapses && this.#nowMs() < this.#untilMs)",
        put: "lapses >= 0"
      },
      {
        file: "src/kernel/perform.ts",
        find: `(chart?.value === "fenced" || askedMs <= fencedMs)`,
        put: `chart?.value === "nothing"`
      },
      {
        file: "src/kernel/perform.ts",
        find: `if (request.port === "agents") {`,
        put: `if (request.port !== request.port) {`
      }
    ]
  },
  {
    name: "left-behind-forgotten",
    seed: 5,
    story: "what a returning host still has of a machine that is elsewhere stays there",
    edits: [
      {
        file: "src/actors/vm/recovering.ts",
        find: `releaseRoom(context, "its host was fenced, and it was to start elsewhere")`,
        put: "releaseRoom(context)"
      }
    ]
  },
  {
    name: "fenced-without-watcher",
    seed: 32,
    story: "a host without a watcher is fenced by waiting like any other",
    edits: [
      {
        file: "src/kernel/fencing.ts",
        find: "if (facts?.lease === undefined) return hold(unleased)",
        put: "if (facts?.lease === null) return hold(unleased)"
      },
      {
        file: "src/kernel/fencing.ts",
        find: "const { lengthMs } = facts.lease",
        put: "const { lengthMs = 1000 } = facts?.lease ?? {}"
      }
    ]
  },
  {
    name: "recovered-without-placement",
    seed: 5,
    story: "a machine leaves its fenced host, and nobody is asked where it may start",
    edits: [
      {
        file: "src/actors/vm/recovering.ts",
        find: `"leaveHost",\n      { type: "request", params: ask }`,
        put: `"leaveHost"`
      }
    ]
  },
  {
    name: "recovery-not-tried-again",
    seed: 13,
    story: "a machine of a fenced host that no host could take is never tried again",
    edits: [
      {
        file: "src/actors/vm/recovering.ts",
        find: `"vm.recoveryDelayed": {\n    actions: {`,
        put: `"vm.recoveryDelayed": {\n    meta: {`
      }
    ]
  }
]
