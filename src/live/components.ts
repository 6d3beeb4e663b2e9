/**
 * The Components port of a node: what a component offers is a Layer, and each attempt at one has a scope of its own,
 * so that a failed attempt leaves nothing and a start is undone in reverse.
 */
import { Cause, Context, Deferred, Effect, Exit, Layer, Scope } from "effect"
import type { ComponentReport, ComponentRequest, PhaseTime, Plan } from "../events/node.ts"
import { Components } from "../kernel/ports/components.ts"

export interface Component extends Plan {
  /** Whether the journal is open once this one is up, or the kernel runs. */
  readonly gives?: "journal" | "kernel"
  /** May use whatever the components before it offered. */
  readonly layer: Layer.Any
}

export type ComponentState = "starting" | "up" | "failed"

export interface StartUpObserver {
  readonly component: (component: Component, state: ComponentState, seconds: number) => void
  readonly error: (component: Component, reason: string) => void
  /** Everything is up; milliseconds since the process began. */
  readonly announce: (phases: ReadonlyArray<PhaseTime>) => Effect.Effect<number>
}

export type StopRequest = Extract<ComponentRequest, { readonly op: "stop" }>
type Attempt = Extract<ComponentRequest, { readonly op: "initialise" }>

export interface LiveComponents extends Components {
  /** What the components that are up offer. */
  readonly offered: () => Context.Context<any>
  /** Ends when everything is announced; the actor's wish to stop comes before or after it. */
  readonly announced: Deferred.Deferred<void>
  readonly stopAsked: Deferred.Deferred<StopRequest>
  /** What the latest attempt at a component failed with. */
  readonly errorOf: (component: string) => unknown
}

export interface ComponentsOptions {
  readonly start: string
  readonly components: ReadonlyArray<Component>
  readonly observer: StartUpObserver
  /** What the components make lives here. */
  readonly holding: Scope.Scope
  /** Attempts run here. */
  readonly working: Scope.Scope
  /** Run when the component that gives the journal is up, in that component's scope. */
  readonly onJournal: (offered: Context.Context<any>) => Effect.Effect<void, never, Scope.Scope>
}

class Attempts {
  readonly options: ComponentsOptions
  readonly errors = new Map<string, unknown>()
  offered = Context.empty() as Context.Context<any>
  readonly #answers = new Map<string, Deferred.Deferred<ComponentReport>>()

  constructor(options: ComponentsOptions) {
    this.options = options
  }

  #build(one: Component): Effect.Effect<void, unknown> {
    return Effect.gen({ self: this }, function* () {
      const scope = yield* Scope.fork(this.options.holding, "sequential")
      const built = Layer.buildWithScope(one.layer as unknown as Layer.Layer<any, unknown, never>, scope)
      const given = yield* built.pipe(
        Effect.provide(this.offered as Context.Context<never>),
        Effect.onError(() => Scope.close(scope, Exit.void))
      )
      this.offered = Context.merge(this.offered, given)
      if (one.gives === "journal") yield* Scope.provide(this.options.onJournal(this.offered), scope)
    })
  }

  #attempt({ start, component, attempt }: Attempt, one: Component): Effect.Effect<ComponentReport> {
    return Effect.gen({ self: this }, function* () {
      const { observer } = this.options
      const began = performance.now()
      observer.component(one, "starting", 0)
      const exit = yield* Effect.exit(this.#build(one))
      const durationMs = Math.round((performance.now() - began) * 10) / 10
      const what = { start, component, attempt, durationMs }
      if (Exit.isSuccess(exit)) {
        observer.component(one, "up", durationMs / 1000)
        return { type: "component.initialised", ...what } as const
      }
      const error = Cause.squash(exit.cause)
      this.errors.set(component, error)
      const reason = reasonOf(error).slice(0, 2000)
      observer.error(one, reason)
      observer.component(one, "failed", durationMs / 1000)
      return { type: "component.failed", ...what, reason } as const
    })
  }

  initialise(request: Attempt): Effect.Effect<ComponentReport> {
    return Effect.suspend(() => {
      const key = `${request.component}/${request.attempt}`
      const known = this.#answers.get(key)
      if (known) return Deferred.await(known)
      const one = this.options.components.find(({ name }) => name === request.component)
      if (one === undefined) throw new Error(`no component ${request.component}`)
      const answer = Deferred.makeUnsafe<ComponentReport>()
      this.#answers.set(key, answer)
      // Who asked may go, as when the kernel takes over; the attempt goes on.
      const attempt = Effect.onExit(this.#attempt(request, one), (exit) => Deferred.done(answer, exit))
      return Effect.andThen(Effect.forkIn(attempt, this.options.working), Deferred.await(answer))
    })
  }
}

export const makeComponents = (options: ComponentsOptions): LiveComponents => {
  const { start, observer } = options
  const attempts = new Attempts(options)
  const announced = Deferred.makeUnsafe<void>()
  const stopAsked = Deferred.makeUnsafe<StopRequest>()

  const announce = Effect.fnUntraced(function* (phases: ReadonlyArray<PhaseTime>) {
    const bootMs = Math.round(yield* observer.announce(phases))
    yield* Deferred.succeed(announced, undefined)
    return { type: "component.announced", start, bootMs } as const
  })

  const perform = (request: ComponentRequest): Effect.Effect<ComponentReport> => {
    if (request.start !== start) return Effect.succeed({ type: "component.over", start: request.start })
    if (request.op === "initialise") return attempts.initialise(request)
    if (request.op === "announce") return announce(request.phases)
    return Effect.andThen(Deferred.succeed(stopAsked, request), Effect.never)
  }

  attempts.offered = Context.make(Components, { perform }) as Context.Context<any>
  return {
    perform,
    announced,
    stopAsked,
    offered: () => attempts.offered,
    errorOf: (component) => attempts.errors.get(component)
  }
}

/** Many typed errors carry `reason` and `path` and no message of their own, and some only wrap another. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { reason, path, cause, _tag } = error as {
    reason?: unknown
    path?: unknown
    cause?: unknown
    _tag?: unknown
  }
  if (cause !== undefined && (error.message === "" || _tag === "UnknownError")) return reasonOf(cause)
  if (error.message !== "") return error.message
  return [path, reason ?? error.name].filter((part) => typeof part === "string").join(": ")
}
