/** Planted faults of the kernel and its actors, which the simulated fleet has to find; in the manner of `mutants.ts`. */
import type { Mutant } from "./mutants.ts"

export const fleetMutants: ReadonlyArray<Mutant> = [
  {
    name: "commands-not-remembered",
    seed: 2,
    story: "a command that is sent again is a new command",
    edits: [
      {
        file: "src/kernel/turn.ts",
        find: `if (isRecent(actor.recent, input.id)) return { outcome: "duplicate" }`,
        put: ""
      },
      {
        file: "src/kernel/turn.ts",
        find: "id: `$" + "{id}#$" + "{index}`,",
        put: 'id: index === 0 && actor.revision >= 0 ? id + "@" + actor.revision + "#0" : id + "#" + index,'
      }
    ]
  },
  {
    name: "memory-promised-twice",
    seed: 6,
    story: "a host gives room away without looking whether it has any",
    edits: [
      {
        file: "src/actors/host/chart.ts",
        find: "used.memoryMib + event.needs.memoryMib <= context.facts.memoryMib &&",
        put: ""
      },
      {
        file: "src/events/feasibility.ts",
        find: `room("memory", "memoryMib"),`,
        put: ""
      }
    ]
  },
  {
    name: "source-resumed-in-doubt",
    seed: 109,
    story: "a destination whose answer to `resume` is lost is taken for one that never ran",
    edits: [
      {
        file: "src/actors/migration/chart.ts",
        find: `(event as Failed).op === "resume" && (event as Failed).code === "not-found",`,
        put: `(event as Failed).op === "resume",`
      }
    ]
  },
  {
    name: "destination-cleared",
    seed: 2,
    story: "after a migration the copy that runs is removed, and the old one stays",
    edits: [
      {
        file: "src/actors/migration/requests.ts",
        find: `  ...at(context.from, context),\n  op: "remove"`,
        put: `  ...at(context.to, context),\n  op: "remove"`
      }
    ]
  },
  {
    name: "source-room-kept",
    seed: 1,
    story: "the room at the source is not given back",
    edits: [
      {
        file: "src/actors/migration/requests.ts",
        find: `type: "host.release", reservation: sourceDecision,`,
        put: `type: "host.release", reservation: id,`
      },
      {
        file: "src/actors/migration/requests.ts",
        find: "releaseSource = ({ vm, from, sourceDecision }",
        put: "releaseSource = ({ vm, from, id }"
      }
    ]
  },
  {
    name: "owner-stays",
    seed: 1,
    story: "the machine's actor does not take over the new host",
    edits: [
      {
        file: "src/actors/vm/chart.ts",
        find: "assign(({ event }) => ({ host: event.to, decision: event.decision }))",
        put: "assign(({ event }) => ({ decision: event.decision }))"
      }
    ]
  },
  {
    name: "failure-believed",
    seed: 16,
    story: "an operation whose answer was lost is taken for one that was not done",
    edits: [
      {
        file: "src/actors/vm/verifying.ts",
        find: `    record("hypervisor.failed", () => ({ type: "vm.doubted" }))\n`,
        put: ""
      }
    ]
  },
  {
    name: "hosts-not-heard",
    seed: 4,
    story: "how a host that comes back has its machines is not held against the journal",
    edits: [
      {
        file: "src/kernel/membership.ts",
        find: "if (own.host !== host) continue",
        put: "if (own.host !== host || found.size >= 0) continue"
      }
    ]
  },
  {
    name: "hosts-heard-when-idle",
    seed: 34,
    story: "what a host tells of a machine at which something is under way is not told again",
    edits: [
      {
        file: "src/kernel/membership.ts",
        find: "while: isHeardLater,",
        put: "while: () => false,"
      }
    ]
  },
  {
    name: "undurable-state-seen",
    seed: 2,
    story: "when an append fails the state stays as if it had not",
    edits: [
      {
        file: "src/kernel/mailbox.ts",
        find: "          return failBatch(staged, error)",
        put: "          return (staged.states.forEach((state, stream) => this.residents.set(stream, state)), failBatch(staged, error))"
      }
    ]
  },
  {
    name: "checkpoint-too-far",
    seed: 3,
    story: "a checkpoint says that it has actors which it passed over",
    edits: [
      {
        file: "src/kernel/kernel.ts",
        find: "filter((actor) => actor.position > since)",
        put: "filter((actor) => actor.position > since + 7)"
      }
    ]
  },
  {
    name: "outstanding-forgotten",
    seed: 2,
    story: "after a restart of the kernel what was outstanding is not performed again",
    edits: [
      {
        file: "src/kernel/perform.ts",
        find: "for (const asked of actor.outstanding) perform(actor.stream, asked)",
        put: ""
      }
    ]
  },
  {
    name: "answer-dropped",
    seed: 2,
    story: "an answer that the kernel could not record is not brought again",
    edits: [
      {
        file: "src/kernel/perform.ts",
        find: ".pipe(Effect.retry({ schedule: retryPause, while: mayPass }), Effect.ignore)",
        put: ".pipe(Effect.ignore)"
      }
    ]
  },
  {
    name: "door-without-limit",
    seed: 13,
    story: "inputs wait at the kernel's door without a limit",
    edits: [
      {
        file: "src/kernel/mailbox.ts",
        find: "if (this.waiting.length >= waiting_max && input.answers === null)",
        put: "if (this.waiting.length >= waiting_max * 1e6 && input.answers === null)"
      }
    ]
  },
  {
    name: "leftovers-forgotten",
    seed: 2,
    story: "what could not be removed from a host is not remembered",
    edits: [
      {
        file: "src/actors/host/chart.ts",
        find: `return leftover !== "" && !returned`,
        put: `return leftover === "nothing" && !returned`
      }
    ]
  },
  {
    name: "unplaced-start-asks-nobody",
    seed: 4,
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
