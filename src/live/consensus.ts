/**
 * The Consensus port of a node: its member of the group, with its log on the disk, its connections and the machine's clocks.
 * Only a node that votes, or is to vote, has one.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Context, Deferred, Effect, Layer, Schema } from "effect"
import type { Scope } from "effect"
import type { RaftSettings } from "../events/raft.ts"
import type { Protocol } from "../kernel/group-member.ts"
import { GroupNode } from "../kernel/group-node.ts"
import { belongTogether, foundedOr, keepIn } from "../kernel/group-start.ts"
import { Consensus, Unavailable } from "../kernel/ports/consensus.ts"
import { EventStore } from "../kernel/ports/event-store.ts"
import type { RevisionConflict, StoreFailure } from "../kernel/ports/event-store.ts"
import { Directory } from "./consensus/directory.ts"
import { LogDamaged, LogFile } from "./consensus/log-file.ts"
import { makePeers } from "./consensus/peers.ts"
import type { Peers } from "./consensus/peers.ts"
import type { Endpoint } from "./link/endpoint.ts"

export interface ConsensusOptions {
  readonly node: string
  /** Where its log lies; made when missing. */
  readonly folder: string
  /** Where others reach this node's endpoint. */
  readonly address: string
  /** Members to begin with; none founds a group, with what the journal has. */
  readonly seeds: ReadonlyArray<string>
  readonly settings: RaftSettings
  readonly protocol: Protocol
  /** Entries that the log keeps for members that are a little behind; 10,000 unless told. */
  readonly keepEntries?: number
  /** Of one file of the log; 64 MiB unless told. */
  readonly fileBytes_max?: number
}

/** What lies here does not belong together, or the disk refuses it. */
export class ConsensusError extends Schema.TaggedError<ConsensusError>()("ConsensusError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

type StartError = ConsensusError | LogDamaged | StoreFailure | RevisionConflict

const keepEntriesDefault = 10_000

const openLog = (options: ConsensusOptions, onFailure: (error: Error) => void) =>
  Effect.suspend((): Effect.Effect<LogFile, LogDamaged | ConsensusError> => {
    const { folder, fileBytes_max } = options
    try {
      const opened = LogFile.open({
        folder,
        onFailure,
        ...(fileBytes_max === undefined ? {} : { fileBytes_max })
      })
      return opened instanceof LogDamaged ? Effect.fail(opened) : Effect.succeed(opened)
    } catch (error) {
      return Effect.fail(new ConsensusError({ path: folder, reason: (error as Error).message }))
    }
  })

const addressesName = "addresses.json"

function readAddresses(folder: string): Readonly<Record<string, string>> {
  const path = join(folder, addressesName)
  if (!existsSync(path)) return {}
  try {
    const read = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>
    return Object.fromEntries(
      Object.entries(read).filter((one): one is [string, string] => typeof one[1] === "string")
    )
  } catch {
    // They are learned again from whoever is reached.
    return {}
  }
}

function writeAddresses(folder: string, addresses: Readonly<Record<string, string>>): void {
  const path = join(folder, addressesName)
  writeFileSync(`${path}.new`, JSON.stringify(addresses), { mode: 0o600 })
  renameSync(`${path}.new`, path)
}

/** One timer, and whatever a defect ends: a member that may be wrong takes no part any more. */
class Shell {
  readonly #say: (message: string, error: unknown) => void
  #timer: NodeJS.Timeout | undefined
  readonly broken = Deferred.makeUnsafe<string>()
  isOver = false
  isStarted = false

  constructor(say: (message: string, error: unknown) => void) {
    this.#say = say
  }

  run(work: () => void): void {
    if (this.isOver || !this.isStarted) return
    try {
      work()
    } catch (error) {
      this.fail("the member of the group met a defect, and takes no part any more", error)
    }
  }

  wake(atMs: number, work: () => void): void {
    clearTimeout(this.#timer)
    if (this.isOver || !Number.isFinite(atMs)) return
    this.#timer = setTimeout(() => this.run(work), Math.max(1, atMs - performance.now()))
  }

  fail(message: string, error: unknown): void {
    this.end()
    this.#say(message, error)
    Deferred.doneUnsafe(
      this.broken,
      Effect.succeed(`${message}: ${error instanceof Error ? error.message : String(error)}`)
    )
  }

  end(): void {
    this.isOver = true
    clearTimeout(this.#timer)
  }
}

/** A node that was removed proposes nothing and reads nothing; it says why. */
const unlessRemoved = (
  service: Consensus["Service"],
  removed: () => string | null
): Consensus["Service"] => ({
  ...service,
  propose: (data, told) => {
    const reason = removed()
    if (reason === null) return service.propose(data, told)
    told({ outcome: "declined", reason, isFinal: true })
    return service.status().term
  },
  readIndex: Effect.suspend(() => {
    const reason = removed()
    if (reason === null) return service.readIndex
    return Effect.fail(new Unavailable({ node: service.node, mayHappen: false, reason }))
  }),
  leadsNow: () => removed() === null && service.leadsNow()
})

/** Who is in the group, as the member knows it, until it learns that it was removed. */
function directoryOf(shell: Shell, node: GroupNode, connections: Peers) {
  let removed: string | null = null
  const directory = Directory.of({
    members: () => (shell.isStarted ? everyone(node) : []),
    connected: () => connections.connected(),
    addressOf: (id) => connections.addressOf(id),
    broken: Deferred.await(shell.broken),
    removed: () => removed,
    leave: (reason) => {
      removed = reason
      shell.end()
    }
  })
  return { directory, removed: () => removed }
}

const makeConsensus = Effect.fn("Consensus.make")(function* (
  options: ConsensusOptions
): Effect.fn.Return<Context.Context<Consensus | Directory>, StartError, Endpoint | EventStore | Scope.Scope> {
  const { folder, node: id, settings, protocol } = options
  const store = yield* EventStore
  const context = yield* Effect.context<never>()
  const fork = (effect: Effect.Effect<void>) => void Effect.runForkWith(context)(effect)
  const shell = new Shell((message, error) => fork(Effect.logFatal(message, error)))
  const log = yield* openLog(options, (error) => shell.fail(`${folder}: nothing is kept any more`, error))
  yield* Effect.addFinalizer(() => Effect.sync(() => log.close()))
  const facts = yield* foundedOr({ node: id, joins: options.seeds.length > 0 }, log, store)
  const problem = yield* belongTogether(facts, store)
  if (problem !== null) return yield* new ConsensusError({ path: folder, reason: problem })

  let peers: Peers | null = null
  const node: GroupNode = new GroupNode(id, Math.random().toString(36).slice(2), settings, protocol, {
    nowMs: () => performance.now(),
    timeMs: () => Date.now(),
    chance: Math.random,
    send: (to, message) => !shell.isOver && (peers?.send(to, message) ?? false),
    keep: (kept, stored) =>
      keepIn(
        log,
        () => node.member,
        kept,
        () => shell.run(stored)
      ),
    wake: (atMs) => shell.wake(atMs, () => node.member.tick()),
    readFacts: (after, limit, done) =>
      fork(
        Effect.match(store.readAll({ from: after + 1, limit }), {
          onSuccess: (found) => done(found, null),
          onFailure: (error) => done(null, error.message)
        })
      ),
    keepEntries: options.keepEntries ?? keepEntriesDefault,
    halt: (reason) => shell.fail("this node takes no part in its group any more", reason)
  })
  yield* Effect.addFinalizer(() => Effect.sync(() => shell.end()))
  peers = yield* makePeers({
    address: options.address,
    seeds: options.seeds,
    addresses: readAddresses(folder),
    onAddresses: (addresses) => writeAddresses(folder, addresses),
    members: () => (shell.isStarted ? everyone(node) : []),
    receive: (from, message) => shell.run(() => node.receive(from, message)),
    lost: (peer, isCurrent) => shell.run(() => (isCurrent ? node.lost(peer) : node.unanswered(peer))),
    hereEveryMs: hereEveryMs
  })
  const service = node.service()
  const { directory, removed } = directoryOf(shell, node, peers)
  const consensus = Consensus.of({
    ...unlessRemoved(service, removed),
    follow: (follower) => {
      service.follow(follower)
      shell.isStarted = true
      shell.run(() => node.member.start(facts))
    }
  })
  return Context.add(Context.make(Consensus, consensus), Directory, directory)
})

/** Often enough that a cut is seen before an election is due, and its end at once. */
const hereEveryMs = 250

const everyone = ({ member: { members } }: GroupNode): ReadonlyArray<string> => [
  ...members.voters,
  ...members.outgoing,
  ...members.learners
]

/** The Consensus port, on this node's endpoint and beside its journal, and who is in its group. */
export const consensusLayer = (
  options: ConsensusOptions
): Layer.Layer<Consensus | Directory, StartError, Endpoint | EventStore> =>
  Layer.effectContext(makeConsensus(options))
