/**
 * Keeps echoes in the journal's own table: raw rows, no chain, no decision, one synced commit a batch. As a worker's
 * file it keeps each message, a batch, and answers when it is on the disk.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads"
import { DatabaseSync } from "node:sqlite"
import { columns } from "../../src/live/event-store/rows.ts"
import { tables } from "../../src/live/event-store/schema.ts"
import { configureRaw } from "./event-store.ts"

export interface Echoed {
  readonly id: string
  readonly stream: string
}

/** A row as large as that of a command. */
function rowOf(position: number, revision: number, { id, stream }: Echoed) {
  const host = Number(stream.slice("host/h".length)) + 1
  const timeMs = 1_760_000_000_000 + position
  const fact = `["${id}#0","novacron.host.drained",1,${timeMs},"${id}","${id}","operator","token-00000000","bench",null,"{\\"reason\\":\\"bench\\"}"]`
  return [position, host, revision, fact, String(position).padStart(64, "0")] as const
}

/** A new file at `path`; what it returns keeps a batch. */
export function makeKeeper(path: string): (batch: ReadonlyArray<Echoed>) => void {
  const database = new DatabaseSync(path)
  configureRaw(database)
  for (const table of tables) database.exec(table)
  const insert = database.prepare(`insert into events values (${columns.map(() => "?").join(", ")})`)
  const begin = database.prepare("begin immediate")
  const commit = database.prepare("commit")
  const revisions = new Map<string, number>()
  let position = 0
  return (batch) => {
    begin.run()
    for (const one of batch) {
      const revision = (revisions.get(one.stream) ?? -1) + 1
      revisions.set(one.stream, revision)
      insert.run(...rowOf(++position, revision, one))
    }
    commit.run()
  }
}

if (!isMainThread) {
  const keep = makeKeeper(workerData as string)
  parentPort?.on("message", (batch: ReadonlyArray<Echoed>) => {
    keep(batch)
    parentPort?.postMessage(null)
  })
}
