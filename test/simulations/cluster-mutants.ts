/** Planted faults of the code that makes a group of nodes one kernel, which the simulated cluster has to find; in the manner of `mutants.ts`. */
import type { Mutant } from "./mutants.ts"

export const clusterMutants: ReadonlyArray<Mutant> = [
  {
    name: "said-by-whoever-led",
    seed: 252,
    story:
      "what the actors of a leader of before said is placed after the next one has been answered in its place",
    edits: [
      {
        file: "src/kernel/proposals.ts",
        find: "if (!this.#offered.some(isSaidByActors)) return",
        put: "if (this.#offered.length >= 0) return"
      }
    ]
  },
  {
    name: "said-by-who-led-before",
    seed: 1284,
    story:
      "a node that leads again, in a later term, places what its kernel of before had its actors say behind what the next one says",
    edits: [
      {
        file: "src/kernel/proposals.ts",
        find: '(role !== "leader" || one.term !== term)',
        put: '(role !== "leader" || term < 0)'
      }
    ]
  },
  {
    name: "leads-before-it-was-handed-over",
    seed: 2,
    story: "a new leader performs while what was decided before still waits for its own disk",
    edits: [
      {
        file: "src/kernel/group-member.ts",
        find: 'this.role === "leader" && this.#handed >= began',
        put: 'this.role === "leader" && this.state.applied >= began'
      }
    ]
  },
  {
    name: "performs-at-once",
    seed: 1,
    story: "a leader performs before its own first entry was applied",
    edits: [
      {
        file: "src/kernel/group-member.ts",
        find: 'this.role === "leader" && this.#handed >= began',
        put: 'this.role === "leader" && this.#handed >= 0 && began >= 0'
      }
    ]
  },
  {
    name: "question-without-end",
    seed: 5,
    story: "who asks another node waits for ever when the connection is replaced by another one",
    edits: [
      {
        file: "src/kernel/group-node.ts",
        find: "      work.pipe(\n        Effect.timeoutOrElse({",
        put: "      work.pipe(\n        (_: unknown) => work, (_: unknown) => work) ?? work.pipe(\n        Effect.timeoutOrElse({"
      },
      {
        file: "src/kernel/group-node.ts",
        find: "  unanswered(peer: string): void {",
        put: "  unanswered(peer: string): void {\n    if (this.#life !== '') return"
      }
    ]
  },
  {
    name: "reconciled-with-the-past",
    seed: 3,
    story: "what a host tells of its machines is held against what a node that is behind knows",
    edits: [{ file: "src/kernel/membership.ts", find: "  yield* kernel.fresh\n", put: "" }]
  },
  {
    name: "told-to-the-removed",
    seed: 133,
    story:
      "a node that nobody has in the group any more goes on telling its machines what their host has told it",
    edits: [
      {
        file: "src/kernel/membership.ts",
        find: 'error._tag === "Overloaded" || error._tag === "StoreFailure"',
        put: 'error._tag !== "UnknownKind"'
      }
    ]
  },
  {
    name: "nobody-to-finish-with",
    seed: 8,
    story:
      "a journal that was being fetched is fetched from members only, of whom a log that came with it knows none",
    edits: [{ file: "src/kernel/installer.ts", find: ", ...heard()]", put: "]" }]
  },
  {
    name: "patience-by-the-wall-clock",
    seed: 4,
    story: "a pause before a proposal is made again is measured by a clock that people set",
    edits: [
      {
        file: "src/kernel/proposals.ts",
        find: "return Number(this.#parts.clock.monotonicTimeNanosUnsafe() / 1_000_000n)",
        put: "return this.#parts.clock.currentTimeMillisUnsafe()"
      }
    ]
  },
  {
    name: "answered-before-the-disk",
    seed: 3,
    story: "what waits for the log's disk is done at once",
    edits: [
      {
        file: "src/kernel/replica.ts",
        find: "if (isHeld) this.#held.push",
        put: "if (isHeld && this.#recorded < 0) this.#held.push"
      }
    ]
  },
  {
    name: "mark-apart",
    seed: 3,
    story: "the mark of how far a journal is, is saved by a transaction of its own, before the facts",
    edits: [
      {
        file: "src/kernel/ordered-mailbox.ts",
        find: "recorded = yield* this.#orStop(store.append(appends, mark))",
        put: "yield* this.#orStop(store.append([], mark)); recorded = yield* this.#orStop(store.append(appends))"
      }
    ]
  },
  {
    name: "repetitions-not-looked-for",
    seed: 6,
    story: "the journal is not asked which inputs it has, and actors remember none",
    edits: [
      {
        file: "src/kernel/ordered-mailbox.ts",
        find: "return new Set(inputs.filter((_, at) => held[at]))",
        put: "return new Set(inputs.filter((_, at) => held[at] && at < 0))"
      },
      {
        file: "src/kernel/turn.ts",
        find: `if (isRecent(actor.recent, input.id)) return { outcome: "duplicate" }`,
        put: ""
      }
    ]
  },
  {
    name: "half-a-journal-is-whole",
    seed: 4,
    story: "while a journal is fetched its mark says that it is where it will be",
    edits: [
      {
        file: "src/kernel/installer.ts",
        find: "const mark = markSnapshot({ ...before, installing: target })",
        put: "const mark = markSnapshot({ ...before, index: target.index, term: target.term, installing: null })"
      }
    ]
  },
  {
    name: "time-of-its-own",
    seed: 3,
    story: "each node stamps what was decided with its own clock",
    edits: [
      {
        file: "src/kernel/ordered-mailbox.ts",
        find: "const stampMs = Math.max(this.#lastMs, timeMs)",
        put: "const stampMs = Math.max(this.#lastMs, timeMs === 0 ? 0 : this.#parts.clock.currentTimeMillisUnsafe())"
      }
    ]
  },
  {
    name: "reads-of-the-past",
    seed: 4,
    story: "a read asks nobody how far it has to be",
    edits: [
      {
        file: "src/kernel/ordered-mailbox.ts",
        find: "const index = yield* this.#parts.order.readIndex",
        put: "const index = yield* Effect.sync(() => this.#place.index)"
      }
    ]
  },
  {
    name: "forgets-what-is-not-synced",
    seed: 3,
    story: "the log forgets what the journal has written and not synced",
    edits: [
      {
        file: "src/kernel/ordered-mailbox.ts",
        find: "    yield* this.#orStop(store.sync)\n    this.#compacted = index",
        put: "    this.#compacted = index"
      }
    ]
  },
  {
    name: "refused-while-it-is-open",
    seed: 403,
    story: "that an earlier try was refused is the answer where nobody knows what became of a later one",
    edits: [
      {
        file: "src/kernel/proposals.ts",
        find: "if (openIn !== null && one.known !== null && isRefused(one.known)) one.known = null",
        put: ""
      }
    ]
  },
  {
    name: "refused-while-an-earlier-is-open",
    seed: 917,
    story:
      "that a try was refused is the answer of who waits to be placed again, and a later try of it is open",
    edits: [
      {
        file: "src/kernel/proposals.ts",
        find: "openIn <= batch || !isRefused(exit)",
        put: "openIn <= batch || openIn > 0"
      }
    ]
  },
  {
    name: "refused-for-good",
    seed: 29,
    story:
      "a proposal that the leader declined, or of which nobody knows, is not made again, and said to have done nothing",
    edits: [
      {
        file: "src/kernel/proposals.ts",
        find: '    this.#again(underWay.offered, proposed.reason, proposed.outcome === "unknown" ? number : null)',
        put: "    this.#fail(underWay.offered, false, proposed.reason)"
      }
    ]
  },
  {
    name: "unplaced-start-asks-nobody",
    seed: 1,
    story: "a machine that no host could take is started, and nobody is asked where it may",
    edits: [
      {
        file: "src/actors/vm/chart.ts",
        find: 'recovering: nextAttempt(context, event.automatic)\n            })),\n            { type: "request", params: ({ context }) => askPlacement(context) }',
        put: "recovering: nextAttempt(context, event.automatic)\n            }))"
      }
    ]
  }
]
