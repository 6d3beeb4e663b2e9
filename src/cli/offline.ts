/** A data folder without its node: the journal opened directly, for verifying and replaying it. */
import { existsSync } from "node:fs"
import { join, resolve } from "node:path"
import { Effect } from "effect"
import type { EventStore as EventStorePort } from "../kernel/ports/event-store.ts"
import { failure } from "./exit.ts"

/** Name of the journal in a data folder. */
export const journalFile = "journal.db"

type Store = EventStorePort["Service"]

/** Run on the journal in `dataDir`. A node that runs there holds its lock, and that is an end of its own. */
export const withJournal = <A, E, R>(dataDir: string, use: (store: Store) => Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const path = join(resolve(dataDir), journalFile)
    if (!existsSync(path)) {
      return yield* failure(
        "notFound",
        `there is no journal ${path}`,
        "name the folder that the node had as system.data_dir"
      )
    }
    const { openEventStore } = yield* Effect.promise(() => import("../live/event-store.ts"))
    const { layer: digest } = yield* Effect.promise(() => import("../live/digest.ts"))
    return yield* Effect.scoped(
      Effect.gen(function* () {
        const store = yield* openEventStore({ path }).pipe(
          Effect.provide(digest),
          Effect.mapError((error) =>
            error._tag === "StoreLocked"
              ? failure("refused", error.message, "ask the running node: leave out --data-dir")
              : failure("failure", `${path}: ${error.message || error._tag}`)
          )
        )
        return yield* use(store)
      })
    )
  })
