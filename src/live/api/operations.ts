/**
 * Operations: what became of the commands that the API took. An operation is an operator's first fact under a
 * correlation; it has ended when one of the facts that its kind ends with follows in the same stream. It is a
 * projection of the journal, so the operations of before a restart are known again after it.
 */
import { randomBytes } from "node:crypto"
import { isDeepStrictEqual } from "node:util"
import { Effect, Stream } from "effect"
import type { Message, Recorded } from "../../events/envelope.ts"
import { withoutPrefix } from "../../events/envelope.ts"
import { EventStore } from "../../kernel/ports/event-store.ts"
import { idHash, keyBytes } from "../event-store/id-filter.ts"
import type { Operation } from "./bodies.ts"

interface Ends {
  readonly command: string
  readonly done: ReadonlyArray<string>
  readonly failed: ReadonlyArray<string>
}

const vm = (command: string, done: string, failed: ReadonlyArray<string> = []): Ends => ({
  command: `vm.${command}`,
  done: [`vm.${done}`],
  failed: ["vm.operationFailed", ...failed]
})

/** The guest ended by itself in the meantime; what was asked of it will not be answered any more. */
const guestEnds = ["vm.crashed", "vm.stopped"]

const groupEnds = { done: ["cluster.changed"], failed: ["cluster.unchanged"] }

const endsByFirstFact: Readonly<Record<string, Ends>> = {
  "vm.startRequested": vm("start", "started", ["vm.crashed", "vm.notPlaced"]),
  "vm.stopRequested": vm("stop", "stopped"),
  "vm.pauseRequested": vm("pause", "paused", guestEnds),
  "vm.resumeRequested": vm("resume", "resumed", guestEnds),
  "vm.rebootRequested": vm("reboot", "rebooted", guestEnds),
  "vm.snapshotRequested": vm("snapshot", "snapshotTaken", guestEnds),
  "vm.restoreRequested": vm("restore", "restored"),
  "vm.deleteRequested": vm("delete", "deleted"),
  "migration.requested": {
    command: "migration.request",
    done: ["migration.completed"],
    failed: ["migration.cancelled", "migration.failed"]
  },
  "migration.cancelRequested": {
    command: "migration.cancel",
    done: ["migration.cancelled"],
    failed: ["migration.completed", "migration.failed"]
  },
  "cluster.removalAsked": { command: "cluster.remove", ...groupEnds },
  "cluster.leadAsked": { command: "cluster.lead", ...groupEnds },
  "keyring.rotationAsked": { command: "keyring.rotate", done: ["keyring.rotated"], failed: [] },
  "authority.tokenMade": { command: "authority.makeToken", done: [], failed: [] },
  "authority.revoked": { command: "authority.revoke", done: [], failed: [] },
  "rebalancer.started": { command: "rebalancer.start", done: [], failed: [] },
  "rebalancer.stopped": { command: "rebalancer.stop", done: [], failed: [] },
  "host.drained": { command: "host.drain", done: [], failed: [] },
  "host.fenced": { command: "host.confirmOff", done: [], failed: [] },
  "host.activated": { command: "host.activate", done: [], failed: [] }
}

/** What ends the operation that this fact begins; a fact of another kind is an end in itself. */
function endsOf(type: string, data: Readonly<Record<string, unknown>>): Ends {
  if (type === "vm.created") {
    return vm("create", data["start"] === true ? "started" : "defined", ["vm.notPlaced", "vm.deleted"])
  }
  return endsByFirstFact[type] ?? { command: type, done: [], failed: [] }
}

interface Entry {
  operation: Operation
  readonly ends: Ends
  /** What its first fact says. */
  readonly said: Readonly<Record<string, unknown>>
}

export interface Operations {
  readonly get: (id: string) => Operation | undefined
  /** The command whose operation this is, `vm.start`. */
  readonly commandOf: (id: string) => string | undefined
  /** Whether a command asks for the very operation that has its id; null when there is no such. */
  readonly isOf: (id: string, stream: string, message: Message) => boolean | null
  /** The operation of these facts, just recorded; known at once, before the journal's subscription brings it. */
  readonly begin: (facts: ReadonlyArray<Recorded>) => Operation | undefined
  /** The operation when it has ended, or as it stands after `timeoutMs`; null when there is no such. */
  readonly wait: (id: string, timeoutMs: number) => Effect.Effect<Operation | null>
}

/** Half of what is kept: two generations, of which the older is dropped whole, cost nothing per operation. */
const generation_max = 5_000
const slots = 1 << 15
/** So many facts are read again at start. */
const history_max = 20_000

/**
 * Entries by id, for as many as a generation has. Nearly every id that is looked for is new: it is denied by one number, where
 * a `Map` that has grown would go to the ids that lie beside it. Open addressing with linear probing (Knuth, TAOCP 6.4).
 */
class Generation {
  /** Where in `entries`, -1 for nowhere; at most a quarter is taken. */
  readonly #places = new Int32Array(slots).fill(-1)
  readonly #hashes = new Int32Array(generation_max)
  readonly entries: Array<Entry> = []

  get(id: string, hash: number): Entry | undefined {
    const place = this.#places[this.#slotOf(id, hash)] as number
    return place < 0 ? undefined : this.entries[place]
  }

  set(id: string, hash: number, entry: Entry): void {
    const slot = this.#slotOf(id, hash)
    const known = this.#places[slot] as number
    const place = known < 0 ? this.entries.length : known
    this.#places[slot] = place
    this.#hashes[place] = hash
    this.entries[place] = entry
  }

  /** The slot that has this id, or the one that it would be put into. */
  #slotOf(id: string, hash: number): number {
    for (let slot = hash & (slots - 1); ; slot = (slot + 1) & (slots - 1)) {
      const place = this.#places[slot] as number
      if (place < 0 || (this.#hashes[place] === hash && this.entries[place]?.operation.id === id)) return slot
    }
  }
}

class Log {
  /** Its key is drawn anew, so that nobody can choose ids that meet. */
  readonly #idHash = idHash(randomBytes(keyBytes))
  #older = new Generation()
  #newer = new Generation()
  readonly #running = new Map<string, Set<Entry>>()
  readonly #waiting = new Map<string, Set<(operation: Operation) => void>>()
  /** The position of the last fact that began an operation. */
  #begunTo = 0

  #hashOf(id: string): number {
    return this.#idHash(0, id) | 0
  }

  entryOf(id: string): Entry | undefined {
    const hash = this.#hashOf(id)
    return this.#newer.get(id, hash) ?? this.#older.get(id, hash)
  }

  begin(fact: Recorded): Entry {
    const began = withoutPrefix(fact.type)
    const ends = endsOf(began, fact.data)
    const operation: Operation = {
      id: fact.correlation,
      stream: fact.stream,
      began,
      // What has nothing to wait for has nobody who waits.
      state: ends.done.length === 0 ? "succeeded" : "running",
      reason: null,
      position: fact.position,
      lastPosition: fact.position,
      startedMs: fact.timeMs,
      updatedMs: fact.timeMs
    }
    const entry = { operation, ends, said: fact.data }
    this.#begunTo = Math.max(this.#begunTo, fact.position)
    this.#newer.set(operation.id, this.#hashOf(operation.id), entry)
    if (operation.state === "running") {
      const open = this.#running.get(fact.stream) ?? new Set()
      this.#running.set(fact.stream, open.add(entry))
    }
    if (this.#newer.entries.length >= generation_max) this.#forgetOlder()
    return entry
  }

  take(fact: Recorded): void {
    const open = this.#running.size === 0 ? undefined : this.#running.get(fact.stream)
    if (open !== undefined) this.#goOn(open, fact)
    if (fact.principal.kind !== "operator") return
    if (this.#beginsNow(fact) || this.entryOf(fact.correlation) === undefined) this.begin(fact)
  }

  #goOn(open: ReadonlySet<Entry>, fact: Recorded): void {
    const type = withoutPrefix(fact.type)
    for (const entry of open) {
      if (fact.position <= entry.operation.lastPosition) continue
      entry.operation = { ...entry.operation, lastPosition: fact.position, updatedMs: fact.timeMs }
      if (entry.ends.done.includes(type)) this.#end(entry, "succeeded", fact)
      else if (entry.ends.failed.includes(type)) this.#end(entry, "failed", fact)
    }
  }

  /** The operation of a command's first fact. One key for two commands at once: each is told what became of its own. */
  operationOf(first: Recorded): Operation {
    const known = this.#beginsNow(first) ? undefined : this.entryOf(first.correlation)?.operation
    return known?.stream === first.stream ? known : this.begin(first).operation
  }

  /** It is the first fact of its command, and nobody began its operation yet: then there is nothing to look for. */
  #beginsNow({ position, correlation, causation, id }: Recorded): boolean {
    return position > this.#begunTo && causation === correlation && id.endsWith("#0")
  }

  /** Resolves when the operation ends; an operation that is forgotten meanwhile never does. */
  ended(id: string): Effect.Effect<Operation> {
    return Effect.callback((resume) => {
      const others = this.#waiting.get(id) ?? new Set()
      const leave = () => {
        others.delete(done)
        if (others.size === 0) this.#waiting.delete(id)
      }
      const done = (operation: Operation) => {
        leave()
        resume(Effect.succeed(operation))
      }
      this.#waiting.set(id, others.add(done))
      return Effect.sync(leave)
    })
  }

  #end(entry: Entry, state: "succeeded" | "failed", fact: Recorded): void {
    const reason = state === "failed" ? reasonOf(fact) : null
    entry.operation = { ...entry.operation, state, reason }
    this.#close(entry)
    for (const resume of this.#waiting.get(entry.operation.id) ?? []) resume(entry.operation)
  }

  #close(entry: Entry): void {
    const { stream } = entry.operation
    const open = this.#running.get(stream)
    open?.delete(entry)
    if (open?.size === 0) this.#running.delete(stream)
  }

  #forgetOlder(): void {
    for (const entry of this.#older.entries) this.#close(entry)
    this.#older = this.#newer
    this.#newer = new Generation()
  }
}

/** Keeps the latest operations, from the journal, in the surrounding scope. */
export const makeOperations = Effect.fn("Operations.make")(function* () {
  const store = yield* EventStore
  const log = new Log()
  const head = yield* store.head
  yield* store.subscribe(Math.max(0, head.position - history_max)).pipe(
    Stream.runForEachArray((facts) =>
      Effect.sync(() => {
        for (const fact of facts) log.take(fact)
      })
    ),
    Effect.catch((error) => Effect.logError("operations no longer follow the journal", error)),
    Effect.forkScoped
  )

  const operations: Operations = {
    get: (id) => log.entryOf(id)?.operation,
    commandOf: (id) => log.entryOf(id)?.ends.command,
    isOf: (id, stream, message) => {
      const entry = log.entryOf(id)
      return entry === undefined
        ? null
        : entry.operation.stream === stream &&
            entry.ends.command === message.type &&
            saysAsMuch(message, entry.said)
    },
    begin: ([first]) => (first === undefined ? undefined : log.operationOf(first)),
    wait: Effect.fnUntraced(function* (id, timeoutMs) {
      const now = log.entryOf(id)?.operation
      if (now === undefined) return null
      if (now.state !== "running") return now
      yield* Effect.timeoutOption(log.ended(id), timeoutMs)
      return log.entryOf(id)?.operation ?? now
    })
  }
  return operations
})

/** Of what a command may leave out: its fact has it then only when another command gave it. */
const optional = ["host", "to", "cloneOf", "takenFrom"]

/**
 * Whether a fact is what this command records: each member of a command that people may give is a member of the first
 * fact that it records. The journal keeps facts, so this also holds for commands of before a restart.
 */
function saysAsMuch({ type: _, ...asked }: Message, said: Readonly<Record<string, unknown>>): boolean {
  return (
    Object.entries(asked).every(([key, value]) => isDeepStrictEqual(value, said[key])) &&
    optional.every((key) => asked[key] !== undefined || said[key] === undefined)
  )
}

function reasonOf(fact: Recorded): string {
  const reason = fact.data["reason"]
  const type = withoutPrefix(fact.type)
  return typeof reason === "string" && reason !== "" ? `${type}: ${reason}` : type
}
