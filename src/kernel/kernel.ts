/** The kernel as one service: recovered from the store, performing what is outstanding, checkpointing as it goes. */
import { Context, Effect, Layer, Ref, Schedule } from "effect"
import type { Message, Principal } from "../events/envelope.ts"
import type { ActorKind } from "./actor.ts"
import type { Answered, Caller } from "./batch.ts"
import type { takeTurn } from "./turn.ts"
import { makeMailbox } from "./mailbox.ts"
import type { Mailbox } from "./mailbox.ts"
import { makeOrderedMailbox } from "./ordered-mailbox.ts"
import { makePerformer } from "./perform.ts"
import { Consensus } from "./ports/consensus.ts"
import type { Unavailable } from "./ports/consensus.ts"
import { EventStore } from "./ports/event-store.ts"
import { recall, resume, saveCheckpoint } from "./replay.ts"
import type { Residents } from "./residents.ts"

export interface KernelOptions {
  readonly kinds: ReadonlyArray<ActorKind>
  readonly node: string
  readonly unreachableMs?: number
  readonly waiting_max?: number
  /** How a turn is taken: a node measures it. */
  readonly takeTurn?: typeof takeTurn
  /** Facts between two checkpoints; they bound the time of the next start. */
  readonly checkpointEvery?: number
  /** In a group: see `OrderedOptions`. */
  readonly patienceMs?: number
  readonly compactEvery?: number
}

export interface Command {
  readonly stream: string
  readonly message: Message
  /** Idempotency key: the same id is the same command. */
  readonly id: string
  readonly correlation: string
  readonly principal: Principal
}

export class Kernel extends Context.Service<
  Kernel,
  {
    readonly submit: (command: Command) => ReturnType<Mailbox["Service"]["submit"]>
    /** `submit` for who has no fiber that could wait; `answered` is told once, and must not throw. */
    readonly offer: (command: Command, answered: Answered, caller?: Caller) => void
    /** The dry run of `submit`. */
    readonly consider: (command: Command) => ReturnType<Mailbox["Service"]["consider"]>
    readonly state: Mailbox["Service"]["state"]
    readonly resident: Mailbox["Service"]["resident"]
    readonly waiting: Mailbox["Service"]["waiting"]
    readonly kinds: ReadonlyArray<ActorKind>
    readonly checkpoint: Effect.Effect<void>
    /** Whether it performs what its actors ask: in a group only the leader's does. */
    readonly isPerforming: () => boolean
    /** Ends when what is read here is not older than the moment of asking; at once where there is one kernel. */
    readonly fresh: Effect.Effect<void, Unavailable>
    /** Whether this node knows who would decide what is submitted now; always where there is one kernel. */
    readonly knowsLeader: () => boolean
  }
>()("novacron/kernel/Kernel") {
  static readonly layer = (options: KernelOptions) => Layer.effect(Kernel, makeKernel(options))
}

const makeKernel = Effect.fn("Kernel.make")(function* (options: KernelOptions) {
  const store = yield* EventStore
  const { actors, savedTo } = yield* resume(store, options.kinds)
  let perform = (_isPerforming: boolean): void => {}
  const { mailbox, fresh, isAlone, knowsLeader } = yield* doorOf(
    { ...options, residents: actors },
    (isLeading) => perform(isLeading)
  )
  const performer = yield* makePerformer(mailbox, {
    ...(options.unreachableMs === undefined ? {} : { unreachableMs: options.unreachableMs })
  })
  perform = (isPerforming) => {
    if (isPerforming) performer.start()
    else performer.stop()
  }
  if (isAlone) perform(true)

  // What is in snapshots already is not saved again; when one of them is lost all are, which mends it.
  const saved = yield* Ref.make(savedTo)
  const checkpoint = Effect.gen(function* () {
    yield* recall(store, options.kinds, actors)
    const since = yield* Ref.get(saved)
    // Whose state is not known can't be covered: the next checkpoint does it.
    if (actors.forgotten.size > 0) return
    const changed = [...mailbox.resident().values()].filter((actor) => actor.position > since)
    const position = changed.reduce((most, actor) => Math.max(most, actor.position), since)
    if (changed.length === 0) return
    yield* saveCheckpoint(store, options.kinds, changed, position)
    yield* Ref.set(saved, position)
  }).pipe(Effect.catch((error) => Effect.logWarning("checkpoint not saved", error)))
  const every = options.checkpointEvery ?? 1000
  const due = Effect.gen(function* () {
    const head = yield* store.head
    if (head.position - (yield* Ref.get(saved)) >= every) yield* checkpoint
  }).pipe(Effect.ignore)
  yield* Effect.forkScoped(Effect.repeat(due, Schedule.spaced("5 seconds")))
  yield* Effect.addFinalizer(() => checkpoint)

  const input = (command: Command) => ({ ...command, answers: null })
  return Kernel.of({
    submit: (command) => mailbox.submit(input(command)),
    offer: (command, answered, caller) => mailbox.offer(input(command), answered, caller),
    consider: (command) => mailbox.consider(input(command)),
    state: mailbox.state,
    resident: mailbox.resident,
    waiting: mailbox.waiting,
    kinds: options.kinds,
    checkpoint,
    isPerforming: () => performer.isPerforming(),
    fresh,
    knowsLeader
  })
})

/** One kernel decides at once; of a group each applies what all have ordered. */
const doorOf = Effect.fnUntraced(function* (
  options: KernelOptions & { readonly residents: Residents },
  leads: (isLeading: boolean) => void
) {
  const { kinds, node, residents, waiting_max, takeTurn } = options
  const own = {
    kinds,
    node,
    residents,
    ...(waiting_max === undefined ? {} : { waiting_max }),
    ...(takeTurn === undefined ? {} : { takeTurn })
  }
  const order = yield* Effect.serviceOption(Consensus)
  if (order._tag === "None")
    return { mailbox: yield* makeMailbox(own), fresh: Effect.void, isAlone: true, knowsLeader: () => true }
  const { patienceMs, compactEvery } = options
  const ordered = makeOrderedMailbox({
    ...own,
    ...(patienceMs === undefined ? {} : { patienceMs }),
    ...(compactEvery === undefined ? {} : { compactEvery }),
    leads
  })
  const door = yield* Effect.provideService(ordered, Consensus, order.value)
  return { ...door, isAlone: false, knowsLeader: () => order.value.status().leader !== null }
})
