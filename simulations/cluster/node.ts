/**
 * A node that votes: the production's kernel, ordered mailbox and member of the group, in one process over two disks that outlive
 * it (the log's and the journal's), connected with the others, and asking agents over lines that may break.
 */
import { Context, Effect, Exit, Layer, Scope, Stream } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import { raftProtocol } from "../../src/actors/protocols.ts"
import { initialContext } from "../../src/actors/raft/step.ts"
import type { RaftContext } from "../../src/actors/raft/step.ts"
import type { Entry, RaftMessage } from "../../src/events/raft.ts"
import type { GroupMessage } from "../../src/kernel/group-node.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import type { Mark } from "../../src/kernel/ordered.ts"
import { Agents, AgentUnreachable } from "../../src/kernel/ports/agents.ts"
import { Consensus } from "../../src/kernel/ports/consensus.ts"
import { Digest } from "../../src/kernel/ports/digest.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import type { Snapshot } from "../../src/kernel/ports/event-store.ts"
import { Views } from "../../src/kernel/ports/views.ts"
import type { Charts } from "../checkers/charts.ts"
import { BehindDisk, behindStore } from "../world/behind-store.ts"
import type { Clock } from "../world/clock.ts"
import { makeConsensus } from "../world/consensus.ts"
import type { MadeConsensus } from "../world/consensus.ts"
import { layer as digest } from "../world/digest.ts"
import { Disk } from "../world/disk.ts"
import { memoryDisk, openEventStore } from "../world/event-store.ts"
import { Line } from "../world/line.ts"
import { Process } from "../world/process.ts"
import type { Random } from "../world/random.ts"
import { epochMs, Runtime } from "../world/runtime.ts"
import type { Schedule } from "../world/schedule.ts"
import { makeViews } from "../world/views.ts"
import type { Wires } from "../world/wires.ts"
import type { ClusterHost } from "./host.ts"
import type { RunOptions } from "./options.ts"

/** Where a crash hurts most. */
export const moments = [
  "log written",
  "log synced",
  "journal appended",
  "journal synced",
  "leads",
  "decided",
  "snapshot sent",
  "facts fetched"
] as const
export type Moment = (typeof moments)[number]

/** Sees what every node does; the checkers are one. */
export interface Watcher {
  readonly stepped: (node: ClusterNode) => void
  readonly sent: (node: ClusterNode, message: RaftMessage) => void
  readonly decided: (node: ClusterNode, entries: ReadonlyArray<Entry>) => void
  readonly moment: (node: ClusterNode, moment: Moment) => void
  /** Its kernel is told to perform. */
  readonly leads: (node: ClusterNode) => void
  /** With this mark its journal was written. */
  readonly marked: (node: ClusterNode, mark: Mark) => void
  readonly crashed: (node: ClusterNode) => void
}

interface World {
  readonly schedule: Schedule
  readonly random: Random
  readonly wires: Wires<GroupMessage>
  readonly hosts: ReadonlyMap<string, ClusterHost>
  readonly watcher: Watcher
  readonly options: RunOptions
  readonly charts: Charts
}

/** One life of it. */
interface Life {
  readonly runtime: Runtime
  readonly scope: Scope.Closeable
  consensus: MadeConsensus | null
  kernel: Kernel["Service"] | null
}

export class ClusterNode {
  readonly id: string
  readonly process: Process
  readonly disk: Disk
  readonly journal: BehindDisk
  /** What is asked of the kernel is lost with its process. */
  readonly line: Line
  readonly joins: boolean
  readonly #world: World
  readonly #random: Random
  #life: Life | null = null
  /** Its disk has lost what it had acknowledged: it takes no part any more (ADR 12). */
  isOut = false
  /** Nobody starts it any more. */
  isGone = false
  /** Times that it ended by itself. */
  halts = 0
  /** Reads go where something is heard of everything; told why a life could not begin. */
  onFailure: (reason: string) => void = () => {}
  onHalt: () => void = () => {}

  constructor(id: string, world: World, clock: Clock, joins: boolean) {
    this.id = id
    this.joins = joins
    this.#world = world
    this.#random = world.random.split(`node ${id}`)
    this.process = new Process(world.schedule, clock)
    const { disk, journal } = world.options
    this.disk = new Disk(world.schedule, this.#random.split("log"), disk, id)
    this.disk.onError = () => this.#halt()
    this.disk.onSync = () => this.#at("log synced")
    const memory = memoryDisk(`journal of ${id}`)
    this.journal = new BehindDisk(memory, this.#random.split("journal"), journal, world.schedule)
    this.line = new Line(this.#random.split("line"), () => this.options().line)
    world.wires.add(id, this)
  }

  options = (): RunOptions => this.#world.options

  get isUp(): boolean {
    return this.process.isUp
  }

  get isAwake(): boolean {
    return this.process.isAwake
  }

  get life(): number {
    return this.process.life
  }

  get nowMs(): number {
    return this.process.nowMs
  }

  get kernel(): Kernel["Service"] | null {
    return this.#life?.kernel ?? null
  }

  get consensus(): MadeConsensus | null {
    return this.#life?.consensus ?? null
  }

  get role(): string {
    return this.#member?.role ?? "follower"
  }

  get context(): RaftContext {
    return (this.#member?.state as RaftContext | undefined) ?? initialContext
  }

  get held(): number {
    return this.#member?.held ?? 0
  }

  get #member() {
    const made = this.consensus
    return made?.isStarted() === true ? made.node.member : undefined
  }

  /** As it knows them; nobody before it is in a group. */
  get members(): ReadonlyArray<string> {
    const { voters = [], outgoing = [], learners = [] } = this.context.history.at(-1)?.members ?? {}
    return [...new Set([...voters, ...outgoing, ...learners])]
  }

  #at(moment: Moment): void {
    this.#world.watcher.moment(this, moment)
  }

  start(): void {
    if (this.isUp || this.isGone) return
    this.isOut ||= this.disk.open() === "damaged"
    if (this.isOut) return
    this.process.begin()
    const { schedule } = this.#world
    const runtime = new Runtime(schedule, this.#random.split(`life ${this.life}`), {
      epochMs,
      pace: this.process.pace()
    })
    const life: Life = { runtime, scope: Scope.makeUnsafe(), consensus: null, kernel: null }
    this.#life = life
    runtime.start(this.#open(life), (exit) => {
      if (this.#life !== life) return
      if (Exit.isSuccess(exit)) this.line.make()
      // A store that fails at the start ends the process; it is started again.
      else if (String(exit.cause).includes("simulated:")) this.#halt()
      else this.onFailure(String(exit.cause))
    })
  }

  readonly #open = Effect.fnUntraced(function* (this: ClusterNode, life: Life) {
    const { options } = this.#world
    const work = Effect.gen({ self: this }, function* () {
      const { sha256 } = Context.get(yield* Layer.build(digest), Digest)
      const inner = yield* openEventStore(this.journal.memory).pipe(
        Effect.provideService(Digest, Digest.of({ sha256 }))
      )
      const store = this.#watchedStore(behindStore(inner, this.journal))
      const made = yield* makeConsensus({
        id: this.id,
        joins: this.joins,
        settings: options.settings,
        protocol: raftProtocol,
        keepEntries: options.keepEntries,
        pageFacts_max: options.pageFacts_max,
        facts_max: options.logFacts_max,
        disk: this.disk,
        process: this.process,
        runtime: life.runtime,
        schedule: this.#world.schedule,
        random: this.#random,
        wires: this.#world.wires,
        store,
        watched: this.#watched,
        halt: () => this.#halt()
      })
      if (typeof made === "string") return yield* Effect.die(made)
      life.consensus = made
      const lag = Effect.suspend(() =>
        Effect.sleep(-Math.log(1 - this.#random.next()) * options.viewLagMeanMs)
      )
      const { views } = yield* makeViews(store, lag)
      const ports = Layer.mergeAll(
        Layer.succeed(EventStore, store),
        Layer.succeed(Views, views),
        Layer.succeed(Consensus, made.service),
        Layer.succeed(Agents, this.#agents(life))
      )
      const kernel = Kernel.layer({
        kinds: actorKinds,
        node: this.id,
        takeTurn: this.#world.charts.takeTurn,
        unreachableMs: options.unreachableMs,
        waiting_max: options.waiting_max,
        checkpointEvery: options.checkpointEvery,
        patienceMs: options.patienceMs,
        compactEvery: options.compactEvery
      }).pipe(Layer.provide(ports))
      life.kernel = Context.get(yield* Layer.build(kernel), Kernel)
      yield* Effect.forkScoped(this.#tellTerms(life.kernel, made.service))
    })
    yield* work.pipe(Scope.provide(life.scope))
  })

  readonly #watched = {
    // Of a process that ended in the middle of a step there is nothing to see.
    stepped: () => {
      if (this.#member !== undefined) this.#world.watcher.stepped(this)
    },
    sent: (message: RaftMessage) => {
      if (this.#member === undefined) return
      this.#world.watcher.sent(this, message)
      if (message.type === "snapshot") this.#at("snapshot sent")
    },
    decided: (entries: ReadonlyArray<Entry>) => {
      this.#world.watcher.decided(this, entries)
      this.#at("decided")
    },
    leads: (isLeading: boolean) => {
      if (!isLeading) return
      this.#world.watcher.leads(this)
      this.#at("leads")
    }
  }

  #watchedStore(store: EventStore["Service"]): EventStore["Service"] {
    const appended = (mark: Snapshot | undefined) =>
      Effect.sync(() => {
        if (mark !== undefined) this.#world.watcher.marked(this, JSON.parse(mark.state) as Mark)
        this.#at("journal appended")
      })
    return EventStore.of({
      ...store,
      append: (batch, mark) => Effect.tap(store.append(batch, mark), appended(mark)),
      sync: Effect.tap(
        store.sync,
        Effect.sync(() => this.#at("journal synced"))
      )
    })
  }

  /** Whenever this node begins to lead, the hosts hear of it; as `tellTerms` of `src/cli/up-kernel.ts`. */
  readonly #tellTerms = Effect.fnUntraced(function* (
    this: ClusterNode,
    kernel: Kernel["Service"],
    order: Consensus["Service"]
  ) {
    for (let told = 0; ;) {
      const { term } = order.status()
      if (kernel.isPerforming() && term !== told) {
        const hear = [...this.#world.hosts.values()].map((host) =>
          Effect.ignore(host.lineTo(this.id).ask(Effect.sync(() => host.hears(term))))
        )
        yield* Effect.all(hear, { concurrency: 16, discard: true })
        told = term
      }
      yield* Effect.sleep(termEveryMs)
    }
  })

  #agents(life: Life): Agents["Service"] {
    return Agents.of({
      perform: (key, request) =>
        Stream.suspend(() => {
          const unreachable = (reason: string) => new AgentUnreachable({ host: request.host, reason })
          const host = this.#world.hosts.get(request.host)
          const term = life.consensus?.node.member.state.term ?? 0
          const agent = host?.agent ?? null
          if (host === undefined || agent === null || !host.lineTo(this.id).isUp)
            return Stream.fail(unreachable("there is no line to it"))
          const asked = Stream.suspend(() => {
            if (host.agent !== agent) return Stream.never
            const refused = host.hears(term)
            return refused === null ? agent.perform(key, request) : Stream.fail({ message: refused })
          })
          return host
            .lineTo(this.id)
            .follow(asked)
            .pipe(Stream.mapError(({ message }) => unreachable(message)))
        })
    })
  }

  /** Work that somebody else asks for runs in this process, and is never heard of again when that ends. */
  serve<A, E>(work: (kernel: Kernel["Service"]) => Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.callback((resume) => {
      this.process.run(() => {
        const life = this.#life
        if (life === null || life.kernel === null) return
        life.runtime.start(work(life.kernel), (exit) => resume(exit))
      })
    })
  }

  /** The same for which nobody waits. */
  tell(work: (kernel: Kernel["Service"]) => Effect.Effect<void>): void {
    const life = this.#life
    this.process.run(() => {
      if (life?.kernel) life.runtime.fork(work(life.kernel))
    })
  }

  receive(from: string, message: GroupMessage): void {
    const made = this.consensus
    this.process.run(() => {
      if (made?.isStarted() !== true || this.consensus !== made || !this.#listensTo(from)) return
      made.node.receive(from, message)
      if (message.kind === "journal") this.#at("facts fetched")
    })
  }

  /** Members, and who is one as other members say; anybody before it is in a group. */
  #listensTo(peer: string): boolean {
    const { members } = this
    return members.length === 0 || members.includes(peer) || this.vouched(peer)
  }

  vouched: (peer: string) => boolean = () => false

  lost(peer: string, isCurrent: boolean): void {
    const made = this.consensus
    this.process.run(() => {
      if (made?.isStarted() !== true || this.consensus !== made) return
      if (isCurrent) made.node.lost(peer)
      else made.node.unanswered(peer)
    })
  }

  #halt(): void {
    if (!this.isUp) return
    this.halts++
    this.crash(false)
    this.onHalt()
  }

  /** As an operator ends it: it saves what it has, which may take long, and goes. */
  stop(ended: () => void): void {
    const life = this.#life
    if (life === null) return
    life.runtime.start(Scope.close(life.scope, Exit.void), () => {
      if (this.#life !== life) return
      this.crash(false)
      ended()
    })
  }

  /** At whatever it is. With its machine's power goes what was not synced. */
  crash(isPower: boolean): void {
    if (!this.isUp) return
    this.process.end()
    this.#life = null
    this.line.break()
    for (const host of this.#world.hosts.values()) host.lineTo(this.id).break()
    this.#world.wires.gone(this.id, isPower)
    if (isPower) {
      this.disk.crash()
      this.journal.crash()
    } else {
      this.disk.kill()
      this.journal.kill()
    }
    this.#world.watcher.crashed(this)
  }

  /** A store of its own over what is on the disk. */
  readonly read = Effect.fnUntraced(function* <A, E>(
    this: ClusterNode,
    use: (store: EventStore["Service"]) => Effect.Effect<A, E>
  ) {
    const { sha256 } = Context.get(yield* Layer.build(digest), Digest)
    return yield* Effect.flatMap(
      openEventStore(this.journal.memory).pipe(Effect.provideService(Digest, Digest.of({ sha256 }))),
      use
    )
  }, Effect.scoped)
}

const termEveryMs = 250
