/**
 * The start of a node. Its actor (`node/<name>`) decides what begins when; here is what runs that actor until there
 * is a kernel to do it:
 *
 * - Before the journal is open, turns are taken in memory. When it opens, the same inputs are decided again on what
 *   the actor's stream says of earlier starts, with their own times, and their facts are the first to be appended.
 * - From then on facts are durable before anything is asked for, as in the kernel.
 * - While the kernel comes up it alone may write to the stream: answers are kept back. Once it is up it performs what
 *   is outstanding again, as after a crash, and is given the same answers; when it fails, they are taken here.
 */
import { randomUUID } from "node:crypto"
import { Clock, Context, Deferred, Effect, Exit, FiberMap, Queue, Schema, Scope, Stream } from "effect"
import { typePrefix } from "../events/envelope.ts"
import type { Draft, Message } from "../events/envelope.ts"
import type { ComponentReport, NodeCommand, NodeFact } from "../events/node.ts"
import type { ActorKind } from "../kernel/actor.ts"
import { Kernel } from "../kernel/kernel.ts"
import { EventStore } from "../kernel/ports/event-store.ts"
import type { RevisionConflict, StoreFailure } from "../kernel/ports/event-store.ts"
import { load } from "../kernel/replay.ts"
import { allowedCommands } from "../kernel/statechart.ts"
import { emptyActor, serialize, takeTurn } from "../kernel/turn.ts"
import type { ActorState, Input, Outstanding } from "../kernel/turn.ts"
import { makeComponents } from "./components.ts"
import type { Component, LiveComponents, StartUpObserver, StopRequest } from "./components.ts"

/** The node did not start; what had been started is stopped again. */
export class StartUpFailed extends Schema.TaggedError<StartUpFailed>()("StartUpFailed", {
  /** Null when it is no single component's fault. */
  component: Schema.NullOr(Schema.String),
  phase: Schema.NullOr(Schema.String),
  reason: Schema.String,
  /** The tag of the component's own error, "" when it has none. */
  tag: Schema.String
}) {
  override get message(): string {
    const what = this.component === null ? "the node" : `${this.component} (${this.phase})`
    return `${what} did not start: ${this.reason}`
  }
}

export interface StartUpOptions {
  readonly node: string
  readonly version: string
  /** The actor that decides. */
  readonly kind: ActorKind
  /** For the whole start. */
  readonly limitMs: number
  readonly observer: StartUpObserver
}

export interface Started {
  /** Names this start, in its facts. */
  readonly start: string
  /** What the components offer. */
  readonly offered: Context.Context<any>
  /** Record that the node is about to stop, and why; closing the scope then stops it. */
  readonly stop: (reason: string) => Effect.Effect<void>
}

type Store = EventStore["Service"]

const principal = { kind: "system", name: "start-up" } as const
const conflicts_max = 5
/** Answers that may wait: one for each component and timer that was asked for. */
const steps_max = 256
/** Beyond the actor's own limit, should nobody be there to hear its timer. */
const graceMs = 5000
const recordStopMs = 2000
const readyType = `${typePrefix}${"node.ready" satisfies NodeFact["type"]}`

/** A command, or the answer to the request that was asked as the `ticket`-th of this start. */
interface Step {
  readonly message: Message
  readonly ticket: number | null
}

interface Taken extends Step {
  readonly timeMs: number
}

class Boot {
  readonly options: StartUpOptions
  readonly start: string
  readonly stream: string
  actor: ActorState
  store: Store | null = null
  /** What was asked, in order; the keys change when the journal is there. */
  tickets: Array<Outstanding> = []
  taken: Array<Taken> = []
  /** The actor's position before this start. */
  openedAt = 0

  constructor(options: StartUpOptions, start: string) {
    this.options = options
    this.start = start
    this.stream = `node/${options.node}`
    this.actor = emptyActor(options.kind, this.stream)
  }

  #input({ message, ticket }: Step): Input {
    const key = ticket === null ? null : (this.tickets[ticket]?.key ?? null)
    return {
      stream: this.stream,
      message,
      id: key ?? `${message.type}/${this.start}`,
      correlation: this.start,
      principal,
      answers: key === null ? null : { key, final: true }
    }
  }

  #turn(step: Step, timeMs: number) {
    return takeTurn(this.options.kind, this.actor, this.#input(step), timeMs, this.options.node)
  }

  /** The tickets of what this step asks for; its facts are durable, or in memory where there is no journal yet. */
  take(step: Step): Effect.Effect<ReadonlyArray<number>, StoreFailure | RevisionConflict> {
    return Effect.gen({ self: this }, function* () {
      const timeMs = Math.floor(yield* Clock.currentTimeMillis)
      for (let attempt = 1; ; attempt++) {
        const turn = this.#turn(step, timeMs)
        if (turn.outcome !== "record") return []
        if (this.store === null) this.taken.push({ ...step, timeMs })
        else {
          const appended = yield* Effect.result(this.#append(this.store, this.actor.revision, turn.drafts))
          if (appended._tag === "Failure") {
            if (appended.failure._tag !== "RevisionConflict" || attempt >= conflicts_max)
              return yield* appended.failure
            this.actor = yield* load(this.store, this.options.kind, this.stream)
            continue
          }
        }
        this.actor = turn.next
        const first = this.tickets.length
        this.tickets.push(...turn.requests)
        return turn.requests.map((_, index) => first + index)
      }
    })
  }

  #append(store: Store, expectedRevision: number, facts: ReadonlyArray<Draft>) {
    return store.append([{ stream: this.stream, expectedRevision, facts }])
  }

  /** The journal is open: what happened before is decided again on the actor's own past, and appended. */
  attach(store: Store): Effect.Effect<void, StoreFailure | RevisionConflict> {
    return Effect.gen({ self: this }, function* () {
      const before = yield* load(store, this.options.kind, this.stream)
      this.actor = before
      this.openedAt = before.position
      this.tickets = []
      const facts: Array<Draft> = []
      for (const step of this.taken) {
        const turn = this.#turn(step, step.timeMs)
        if (turn.outcome !== "record") throw new Error(`${step.message.type} was taken, and is not any more`)
        facts.push(...turn.drafts)
        this.tickets.push(...turn.requests)
        this.actor = turn.next
      }
      const recorded = yield* this.#append(store, before.revision, facts)
      this.taken = []
      this.store = store
      // So that a node that never gets as far as its kernel's checkpoints does not read all its starts each time.
      const position = recorded.at(-1)?.position ?? before.position
      const { revision } = this.actor
      const state = serialize({ ...this.actor, position })
      const { snapshotVersion: version } = this.options.kind
      yield* store.saveSnapshots([{ stream: this.stream, revision, position, version, state }])
    })
  }
}

/**
 * Start everything in the surrounding scope; closing it stops everything in reverse order. A start that fails is
 * undone before this returns.
 */
export const startUp = Effect.fn("startUp")(function* (
  components: ReadonlyArray<Component>,
  options: StartUpOptions
) {
  const start = randomUUID()
  const outer = yield* Effect.scope
  const holding = yield* Scope.fork(outer, "sequential")
  const working = yield* Scope.fork(outer, "sequential")
  const live = makeComponents({
    start,
    components,
    observer: options.observer,
    holding,
    working,
    onJournal: (offered) =>
      Effect.addFinalizer(() => recordEnd(Context.get(offered, EventStore), options, start))
  })
  const steps = yield* Queue.bounded<Step>(steps_max)
  const begin: NodeCommand = {
    type: "node.begin",
    start,
    version: options.version,
    limitMs: options.limitMs,
    components: components.map(({ name, phase, level, needs }) => ({ name, phase, level, needs }))
  }
  yield* Queue.offer(steps, { message: begin, ticket: null })
  const broken = Deferred.makeUnsafe<never, StartUpFailed>()
  const failed = (reason: string, tag = "") =>
    new StartUpFailed({ component: null, phase: null, reason, tag })
  const boot = new Boot(options, start)
  const run = runSteps(boot, components, live, steps).pipe(
    Effect.scoped,
    Effect.catchCause((cause) =>
      Deferred.fail(broken, failed(`its start could not be recorded: ${cause.toString()}`))
    )
  )
  yield* Effect.forkIn(run, working)
  const stopped = Effect.flatMap(Deferred.await(live.stopAsked), (request) => failureOf(request, live))
  // A voter's journal has only what its group has ordered: its start is in its own log, as that of a node without a kernel.
  const isRecorded = components.some(({ gives }) => gives === "journal")
  const ready = Effect.flatMap(Deferred.await(live.announced), () =>
    isRecorded ? readyIsRecorded(boot, live) : Effect.void
  )
  yield* Effect.raceAllFirst([ready, stopped, Deferred.await(broken)]).pipe(
    Effect.timeoutOrElse({
      duration: options.limitMs + graceMs,
      orElse: () => failed(`not ready within ${options.limitMs + graceMs} ms`)
    }),
    Effect.onError(() => Effect.andThen(Scope.close(working, Exit.void), Scope.close(holding, Exit.void)))
  )
  const started: Started = {
    start,
    offered: live.offered(),
    stop: (reason) =>
      isRecorded
        ? stopNode(live, steps, options.node, start, reason)
        : Effect.asVoid(Queue.offer(steps, { message: stopCommand(reason), ticket: null }))
  }
  return started
})

/** Whoever is told that the node is ready may look it up: the fact is in the journal. */
const readyIsRecorded = (boot: Boot, live: LiveComponents): Effect.Effect<void, StoreFailure> =>
  Context.get(live.offered(), EventStore)
    .subscribe(boot.openedAt)
    .pipe(
      Stream.filter((fact) => fact.correlation === boot.start && fact.type === readyType),
      Stream.take(1),
      Stream.runDrain
    )

const failureOf = ({ component, phase, reason }: StopRequest, live: LiveComponents) => {
  const error = component === null ? null : live.errorOf(component)
  const tag = typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : ""
  return new StartUpFailed({ component, phase, reason, tag })
}

/** Take the steps in order until the kernel takes the actor over; on a node without one, for ever. */
const runSteps = Effect.fnUntraced(function* (
  boot: Boot,
  components: ReadonlyArray<Component>,
  live: LiveComponents,
  steps: Queue.Queue<Step>
) {
  const given = new Map(components.map((one) => [one.name, one.gives]))
  const run = yield* FiberMap.runtime(yield* FiberMap.make<string>())<never>()
  /** Answers that came while the kernel came up; null while nobody else takes turns. */
  const kept: { steps: Array<Step> | null } = { steps: null }

  const perform = (ticket: number) => {
    const asked = boot.tickets[ticket]
    if (asked === undefined) return
    const { request, askedMs } = asked
    if (request.port === "component") {
      if (request.op === "initialise" && given.get(request.component) === "kernel") kept.steps = []
      const answer = Effect.flatMap(live.perform(request), (message) =>
        Queue.offer(steps, { message, ticket })
      )
      run(`${ticket}`, answer)
    } else if (request.port === "timer") {
      const message = { type: "timer.fired", name: request.name }
      const wait = Effect.gen(function* () {
        if (request.op === "stop") return
        const now = yield* Clock.currentTimeMillis
        yield* Effect.sleep(Math.max(0, askedMs + request.afterMs - now))
        yield* Queue.offer(steps, { message, ticket })
      })
      run(`!${request.name}`, wait)
    }
  }

  const take = Effect.fnUntraced(function* (step: Step) {
    let tickets = yield* boot.take(step)
    if (giverOf(step.message, given) === "journal") {
      yield* boot.attach(Context.get(live.offered(), EventStore))
      tickets = tickets.map((_, index) => boot.tickets.length - tickets.length + index)
    }
    for (const ticket of tickets) perform(ticket)
  })

  for (;;) {
    const step = yield* Queue.take(steps)
    if (kept.steps === null) {
      yield* take(step)
      continue
    }
    if (giverOf(step.message, given) === "kernel") return
    kept.steps.push(step)
    if (!isFailureOf(step.message, given, "kernel")) continue
    const waiting = kept.steps
    kept.steps = null
    for (const one of waiting) yield* take(one)
  }
})

type Given = ReadonlyMap<string, Component["gives"]>

/** What this answer says is there now. */
const giverOf = (message: Message, given: Given): Component["gives"] | null =>
  message.type === "component.initialised"
    ? (given.get((message as ComponentAnswer).component) ?? null)
    : null

const isFailureOf = (message: Message, given: Given, what: Component["gives"]): boolean =>
  message.type === "component.failed" && given.get((message as ComponentAnswer).component) === what

type ComponentAnswer = Extract<ComponentReport, { readonly component: string }>

const stopCommand = (reason: string): Message => ({ type: "node.stop", reason: reason.slice(0, 256) })

/** Whoever runs the actor now is told. That it can't be recorded does not keep a node from stopping. */
const stopNode = (
  live: LiveComponents,
  steps: Queue.Queue<Step>,
  node: string,
  start: string,
  reason: string
): Effect.Effect<void> => {
  const kernel = Context.getOption(live.offered(), Kernel)
  const message = stopCommand(reason)
  if (kernel._tag === "None") return Effect.asVoid(Queue.offer(steps, { message, ticket: null }))
  return kernel.value
    .submit({ stream: `node/${node}`, message, id: `node.stop/${start}`, correlation: start, principal })
    .pipe(
      Effect.timeout(recordStopMs),
      Effect.catch((error) => Effect.logWarning("the end of this node was not recorded", error)),
      Effect.asVoid
    )
}

/** Run just before the journal closes: everything else that this start made is stopped. */
const recordEnd = (store: Store, options: StartUpOptions, start: string): Effect.Effect<void> =>
  Effect.gen(function* () {
    const boot = new Boot(options, start)
    boot.store = store
    boot.actor = yield* load(store, options.kind, boot.stream)
    if (allowedCommands(options.kind, boot.actor.chart).includes("node.stop")) {
      yield* boot.take({ message: stopCommand("ended by the process that started it"), ticket: null })
    }
    const asked = boot.actor.outstanding.find(
      ({ request }) => request.port === "component" && request.op === "stop" && request.start === start
    )
    if (asked === undefined) return
    boot.tickets = [asked]
    const durationMs = Math.max(0, Math.floor(yield* Clock.currentTimeMillis) - asked.askedMs)
    yield* boot.take({ message: { type: "component.stopped", start, durationMs }, ticket: 0 })
  }).pipe(Effect.catch((error) => Effect.logWarning("the end of this node was not recorded", error)))
