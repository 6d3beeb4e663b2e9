/**
 * All that a node has and does that a dry run could change: every row of its journal, the content of every file in
 * its folder, the processes that it started, and the sockets that these processes have. Two footprints are compared
 * as text, so that a difference says where it is.
 */
import { createHash } from "node:crypto"
import {
  copyFileSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, relative } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { SQLOutputValue } from "node:sqlite"
import { setTimeout as sleep } from "node:timers/promises"

export interface Watched {
  /** Everything in it is compared. */
  readonly folder: string
  /** Of the node with the kernel. */
  readonly journal: string
  readonly pids: ReadonlyArray<number>
  /** Where this process asks the node: those connections are the test's own. */
  readonly apiPort: number
  /**
   * Files whose content changes by itself: the disks of guests that run, and the views while they are still behind
   * the journal, of which they are a copy that is saved once a second. They have to be there all the same.
   */
  readonly living: (path: string) => boolean
}

export interface Footprint {
  readonly facts: ReadonlyArray<string>
  readonly files: ReadonlyArray<string>
  readonly processes: ReadonlyArray<string>
  readonly sockets: ReadonlyArray<string>
}

/**
 * Left out: the nodes' logs, which tell of dry runs too; and the index of a write-ahead log in shared memory, in which
 * every reader leaves its marks. The logs themselves (`-wal`) are compared.
 */
const leftOut = (path: string) => /^[^/]+\.log$/.test(path) || path.endsWith("-shm")

function filesOf({ folder, living }: Watched): ReadonlyArray<string> {
  const found: Array<string> = []
  const walk = (at: string) => {
    for (const name of readdirSync(at).toSorted()) {
      const path = join(at, name)
      const shown = relative(folder, path)
      if (leftOut(shown)) continue
      const stat = lstatSync(path)
      const mode = stat.mode.toString(8)
      if (stat.isDirectory()) {
        found.push(`${shown}/ ${mode}`)
        walk(path)
      } else if (stat.isFile()) {
        const hash = living(shown)
          ? "living"
          : createHash("sha256").update(readFileSync(path)).digest("hex").slice(0, 16)
        found.push(`${shown} ${mode} ${hash}`)
      } else found.push(`${shown} ${mode}`)
    }
  }
  walk(folder)
  return found
}

interface Process {
  readonly pid: number
  readonly parent: number
  /** Ticks since boot: with it a process id that was given out again is another process. */
  readonly began: string
  readonly line: string
}

function processOf(pid: number): Process | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim()
    return { pid, parent: Number(fields[1]), began: fields[19] ?? "", line }
  } catch {
    return null
  }
}

/** The nodes, everything below them, and whatever else names their folder, as a machine does whose node went away. */
function processesOf({ pids, folder }: Watched): ReadonlyArray<Process> {
  const all = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => processOf(Number(name)))
    .filter((one) => one !== null)
  const mine = new Set(pids)
  for (let before = -1; before !== mine.size;) {
    before = mine.size
    for (const { pid, parent, line } of all)
      if (pid !== process.pid && (mine.has(parent) || line.includes(folder))) mine.add(pid)
  }
  return all.filter(({ pid }) => mine.has(pid)).toSorted((a, b) => a.pid - b.pid)
}

/** Socket inode → pid, for these processes. */
function socketOwners(processes: ReadonlyArray<Process>): ReadonlyMap<string, number> {
  const owners = new Map<string, number>()
  for (const { pid } of processes) {
    for (const fd of namesIn(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1]
      if (inode !== undefined) owners.set(inode, pid)
    }
  }
  return owners
}

function namesIn(folder: string): ReadonlyArray<string> {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return ""
  }
}

const rowsOf = (table: string): ReadonlyArray<ReadonlyArray<string>> => {
  const lines = readFileSync(`/proc/net/${table}`, "utf8").trimEnd().split("\n").slice(1)
  return lines.map((line) => line.trim().split(/\s+/))
}

/** Every socket of these processes with its state and ends (proc(5)), but for those by which the API is asked. */
function socketsOf(watched: Watched, processes: ReadonlyArray<Process>): ReadonlyArray<string> {
  const owners = socketOwners(processes)
  const port = watched.apiPort.toString(16).toUpperCase().padStart(4, "0")
  const found: Array<string> = []
  for (const row of rowsOf("unix")) {
    const [, , , , type, state, inode = "", path = ""] = row
    const owner = owners.get(inode)
    if (owner !== undefined) found.push(`unix ${owner} type ${type} state ${state} ${inode} ${path}`)
  }
  for (const table of ["tcp", "tcp6", "udp", "udp6"]) {
    for (const row of rowsOf(table)) {
      const [, local = "", remote = "", state = ""] = row
      const owner = owners.get(row[9] ?? "")
      const isAsked = state !== "0A" && local.endsWith(`:${port}`)
      if (owner !== undefined && !isAsked) found.push(`${table} ${owner} ${local} ${remote} state ${state}`)
    }
  }
  return found.toSorted()
}

/** Every row of every table but the snapshots, which only save replaying; those are in the file's hash. */
const factsOf = (journal: string): ReadonlyArray<string> =>
  ["select * from events order by position", "select * from streams order by id"]
    .flatMap((query) => rowsIn(journal, query))
    .map((row) => JSON.stringify(row))

export function rowsIn(
  file: string,
  query: string,
  ...values: ReadonlyArray<string>
): ReadonlyArray<Readonly<Record<string, SQLOutputValue>>> {
  const database = new DatabaseSync(file, { readOnly: true })
  try {
    return database.prepare(query).all(...values)
  } finally {
    database.close()
  }
}

export function footprint(watched: Watched): Footprint {
  const processes = processesOf(watched)
  return {
    facts: factsOf(watched.journal),
    files: filesOf(watched),
    processes: processes.map(({ pid, began, line }) => `${pid} ${began} ${line}`),
    sockets: socketsOf(watched, processes)
  }
}

/** Whether the file of the views has all that is in the journal: from then on nothing changes it. */
function viewsAreSaved({ folder, journal, living }: Watched): boolean {
  const views = join(dirname(journal), "views.db")
  if (living(relative(folder, views))) return true
  const [head] = rowsIn(journal, "select max(position) as position from events")
  // The node has the file for itself alone, so a copy is read; one that was torn is not saved yet.
  const copy = mkdtempSync(join(tmpdir(), "nvviews-"))
  try {
    for (const end of ["", "-wal"]) copyFileSync(`${views}${end}`, join(copy, `views.db${end}`))
    const [behind] = rowsIn(join(copy, "views.db"), "select min(position) as position from runs")
    return behind?.["position"] === head?.["position"]
  } catch {
    return false
  } finally {
    rmSync(copy, { recursive: true })
  }
}

const quietMs = 60
const quietTries_max = 500

/** The footprint once nothing changes any more: what was really done before has come to its end. */
export async function settled(watched: Watched): Promise<Footprint> {
  let before = JSON.stringify(footprint(watched))
  for (let tries = 0; tries < quietTries_max; tries++) {
    await sleep(quietMs)
    const saved = viewsAreSaved(watched)
    const now = footprint(watched)
    const text = JSON.stringify(now)
    if (saved && text === before) return now
    before = text
  }
  throw new Error(`the node did not come to rest within ${quietTries_max * quietMs} ms`)
}
