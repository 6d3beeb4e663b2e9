/**
 * Who works with a simulated cluster: operators whose commands go to any node, and again to another one under the same key when
 * nobody answers; readers, whose answers have to be as late as they say; and stewards, who change who votes and who leads.
 */
import { Cause, Effect, Exit } from "effect"
import type { Revisions } from "../checkers/cluster.ts"
import type { Command } from "../checkers/commands.ts"
import type { Patience } from "../checkers/patience.ts"
import type { Noticed } from "../checkers/violation.ts"
import { clusterStream } from "../../src/events/cluster.ts"
import type { GroupOp } from "../../src/events/cluster.ts"
import type { Accepted, SubmitError } from "../../src/kernel/refusals.ts"
import type { ActorState } from "../../src/kernel/turn.ts"
import { Operators } from "../fleet/operators.ts"
import type { Issued, Operated } from "../fleet/operators.ts"
import type { Random } from "../world/random.ts"
import type { Runtime } from "../world/runtime.ts"
import type { ClusterHost } from "./host.ts"
import type { ClusterNode } from "./node.ts"
import type { RunOptions } from "./options.ts"

interface World {
  readonly runtime: Runtime
  readonly random: Random
  readonly nodes: ReadonlyMap<string, ClusterNode>
  readonly hosts: ReadonlyMap<string, ClusterHost>
  readonly options: RunOptions
  readonly revisions: Revisions
  readonly patience: Patience
  readonly noticed: Noticed
  /** Who may be taken out without harm. */
  readonly mayRemove: (id: string) => boolean
}

type Tried = SubmitError | { readonly _tag: string; readonly mayHappen?: boolean }

/** Of a command that said that nothing was done, the share that is not sent again. */
const givenUp = 0.1

export class Clients implements Operated {
  readonly #world: World
  readonly #random: Random
  readonly operators: Operators
  /** Commands of which a try was never answered, or may have taken effect: no later refusal is final. */
  readonly #uncertain = new Set<string>()
  /** By command: when it was asked first. */
  readonly #firstMs = new Map<string, number>()
  readonly #errands: Array<Issued> = []
  #errandsOpen = 0
  #isOpen = true
  readonly counts = {
    tries: 0,
    unavailable: 0,
    mayHappen: 0,
    unanswered: 0,
    givenUp: 0,
    reads: 0,
    staleReads: 0,
    readsFailed: 0
  }
  readonly asked: Record<GroupOp, number> = { admit: 0, remove: 0, lead: 0 }
  /** Told of what somebody read. */
  onRead: (node: ClusterNode, actor: ActorState) => void = () => {}

  constructor(world: World) {
    this.#world = world
    this.#random = world.random.split("clients")
    this.operators = new Operators(world, this, { ...world.options, fencing: null })
  }

  start(): void {
    this.operators.start()
    const { reads, stewards } = this.#world.options
    for (let one = 0; one < reads.readers; one++) this.#readOn()
    this.#repeat(stewards.admitEveryMs, () => this.#steward("admit"))
    this.#repeat(stewards.removeEveryMs, () => this.#steward("remove"))
    this.#repeat(stewards.leadEveryMs, () => this.#steward("lead"))
  }

  close(): void {
    this.#isOpen = false
    this.operators.close()
  }

  get waiting(): number {
    return this.operators.waiting + this.#errandsOpen
  }

  /** A change of who votes that somebody still waits for. */
  get isChanging(): boolean {
    return this.#errandsOpen > 0
  }

  /** As the checker of commands wants them: a refusal that is not final says nothing. */
  commands(): ReadonlyArray<Command> {
    return [...this.operators.issued, ...this.#errands].map((one) =>
      one.answer === "refused" && this.#uncertain.has(one.id) ? { ...one, answer: null } : one
    )
  }

  get hosts(): ReadonlyMap<string, ClusterHost> {
    return this.#world.hosts
  }

  /** What people have seen of it: somebody's view, perhaps an old one. */
  get kernel() {
    for (const { kernel } of this.#world.nodes.values()) if (kernel !== null) return kernel
    return null
  }

  /** One that takes itself for a member, mostly: the others are asked now and then. */
  #any(): ClusterNode {
    const nodes = [...this.#world.nodes.values()]
    const members = nodes.filter(({ id, members: known }) => known.includes(id))
    const all = members.length === 0 || this.#random.chance(0.1) ? nodes : members
    return all[this.#random.int(0, all.length - 1)] as ClusterNode
  }

  get #nowMs(): number {
    return this.#world.runtime.schedule.nowMs
  }

  readonly submit = (command: Issued): Effect.Effect<Accepted, Tried> =>
    Effect.suspend((): Effect.Effect<Accepted, Tried> => {
      const node = this.#any()
      // Asked again, it is answered by what it did when it was asked before.
      const calledMs = this.#firstMs.get(command.id) ?? this.#nowMs
      this.#firstMs.set(command.id, calledMs)
      this.counts.tries++
      const { stream, message, id } = command
      const principal = { kind: "operator", name: "somebody" } as const
      const work = node.serve((kernel) => {
        const answered = this.#world.patience.asked(node)
        const submitted = kernel.submit({ stream, message, id, correlation: id, principal })
        return Effect.ensuring(submitted, Effect.sync(answered))
      })
      return (node.line.ask(work) as Effect.Effect<Accepted, Tried>).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => this.#world.noticed.within(() => this.#ended(command, exit, calledMs)))
        ),
        Effect.mapError((error): Tried => {
          const mayStop = error._tag === "Unavailable" && stream !== clusterStream
          if (!mayStop || this.#uncertain.has(id) || !this.#random.chance(givenUp)) return error
          // It said that nothing was done; who believes that does not send it again.
          this.counts.givenUp++
          return { _tag: "CommandRefused" }
        })
      )
    })

  #ended({ id, stream }: Issued, exit: Exit.Exit<Accepted, Tried>, calledMs: number): void {
    if (Exit.isSuccess(exit)) {
      const { revision } = exit.value
      if (revision >= 0)
        this.#world.revisions.answered(`the answer to ${id}`, stream, revision, calledMs, this.#nowMs)
      return
    }
    const reason = exit.cause.reasons.find(Cause.isFailReason)
    if (reason === undefined) {
      this.counts.unanswered++
      this.#uncertain.add(id)
      return
    }
    const error = reason.error
    if (error._tag === "Unavailable") this.counts.unavailable++
    const mayHappen = "mayHappen" in error ? error.mayHappen : undefined
    if (mayHappen) this.counts.mayHappen++
    const isNothing = error._tag === "CommandRefused" || error._tag === "Overloaded" || mayHappen === false
    if (!isNothing) this.#uncertain.add(id)
  }

  #repeat(everyMs: number, happen: () => void): void {
    if (everyMs === Number.POSITIVE_INFINITY) return
    this.#world.runtime.schedule.after(-Math.log(1 - this.#random.next()) * everyMs, () => {
      if (!this.#isOpen) return
      happen()
      this.#repeat(everyMs, happen)
    })
  }

  /** Whom people believe to vote. */
  #voters(): ReadonlyArray<string> {
    for (const node of this.#world.nodes.values())
      if (node.isUp && node.role === "leader") return node.context.history.at(-1)?.members.voters ?? []
    return []
  }

  #steward(op: GroupOp): void {
    const voters = this.#voters()
    const ids = [...this.#world.nodes.keys()]
    const some =
      op === "admit"
        ? ids.filter((id) => !voters.includes(id))
        : op === "remove"
          ? voters.filter((id) => voters.length > 1 && this.#world.mayRemove(id))
          : voters
    const node = some[this.#random.int(0, some.length - 1)]
    if (node === undefined) return
    this.asked[op]++
    this.errand(op, node)
  }

  /** Sent until somebody answers. */
  errand(op: GroupOp, node: string): void {
    const message = { type: `cluster.${op}`, node, reason: "simulated" }
    const id = `steward-${this.#errands.length}`
    const one: Issued = { stream: clusterStream, message, id, sent: 0, answer: null, positions: [] }
    this.#errands.push(one)
    this.#errandsOpen++
    const { runtime, options } = this.#world
    const send = () => {
      one.sent++
      runtime.start(Effect.timeout(this.submit(one), options.operators.timeoutMs), (exit) => {
        if (Exit.isSuccess(exit)) {
          one.answer = "accepted"
          one.positions = exit.value.facts.map(({ position }) => position)
        } else {
          const error = Cause.squash(exit.cause) as { readonly _tag?: string }
          if (error._tag !== "CommandRefused")
            return runtime.schedule.after(20 + this.#random.next() * 200, send)
          one.answer = "refused"
        }
        this.#errandsOpen--
      })
    }
    send()
  }

  #readOn(): void {
    const { reads } = this.#world.options
    this.#world.runtime.schedule.after(-Math.log(1 - this.#random.next()) * reads.thinkMeanMs, () => {
      if (!this.#isOpen) return
      const isStale = this.#random.chance(reads.stale)
      this.#read(isStale)
    })
  }

  #read(isStale: boolean): void {
    const { operators } = this.#world.options
    const node = this.#any()
    const stream = `vm/vm-${this.#random.int(0, operators.machines - 1)}`
    const calledMs = this.#nowMs
    const work = node.serve((kernel) =>
      Effect.andThen(isStale ? Effect.void : kernel.fresh, kernel.state(stream))
    )
    const asked = Effect.timeout(node.line.ask(work), operators.timeoutMs)
    this.#world.runtime.start(asked, (exit) => {
      if (Exit.isSuccess(exit)) {
        this.counts[isStale ? "staleReads" : "reads"]++
        this.onRead(node, exit.value)
        if (!isStale)
          this.#world.revisions.answered("a read", stream, exit.value.revision, calledMs, this.#nowMs)
      } else this.counts.readsFailed++
      this.#readOn()
    })
  }
}
