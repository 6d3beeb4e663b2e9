/**
 * The start of a node: four phases (SPEC §7), and in each the components in the order their needs demand, a level
 * at a time and a level's components at once. What a component offers is a Layer; its resources live in a scope
 * of its own, so that a failed start is undone in reverse and a component that is tried again begins afresh.
 */
import { Context, Effect, Exit, Layer, Schedule, Schema, Scope } from "effect"

export const phases = ["pre-init", "core", "service", "post-init"] as const
export type Phase = (typeof phases)[number]

/**
 * `critical`: the start fails with it. `degraded`: tried again after 1, 2 and 4 s, then the node goes on without
 * it. `warning`: said once, and the node goes on.
 */
export type Level = "critical" | "degraded" | "warning"

export interface Component {
  readonly name: string
  readonly phase: Phase
  readonly level: Level
  /** Names of components of this phase or an earlier one. */
  readonly needs: ReadonlyArray<string>
  /** May use whatever the components before it offered. */
  readonly layer: Layer.Any
}

export type ComponentState = "starting" | "up" | "failed" | "stopped"

export interface StartUpObserver {
  readonly component: (component: Component, state: ComponentState, seconds: number) => void
  readonly phase: (phase: Phase, seconds: number) => void
  readonly error: (component: Component, reason: string) => void
}

/** The components can't be ordered: `problem` names the unknown need or the cycle. */
export class StartUpOrderError extends Schema.TaggedError<StartUpOrderError>()("StartUpOrderError", {
  problem: Schema.String
}) {}

/** A critical component did not start; what had been started is stopped again. */
export class StartUpFailed extends Schema.TaggedError<StartUpFailed>()("StartUpFailed", {
  component: Schema.String,
  phase: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.component} (${this.phase}) did not start: ${this.reason}`
  }
}

/**
 * Levels of components, each needing only what earlier levels hold (Kahn's algorithm, CACM 5(11), 1962).
 * A need in a later phase is an error, and so is a cycle.
 */
export function levels(components: ReadonlyArray<Component>): ReadonlyArray<ReadonlyArray<Component>> {
  const byName = new Map(components.map((one) => [one.name, one]))
  if (byName.size !== components.length) {
    throw new StartUpOrderError({ problem: "two components have one name" })
  }
  for (const one of components) {
    for (const need of one.needs) {
      const other = byName.get(need)
      if (!other) throw new StartUpOrderError({ problem: `${one.name} needs ${need}, which does not exist` })
      if (phases.indexOf(other.phase) > phases.indexOf(one.phase)) {
        throw new StartUpOrderError({ problem: `${one.name} (${one.phase}) needs ${need} of ${other.phase}` })
      }
    }
  }
  const done = new Set<string>()
  const result: Array<ReadonlyArray<Component>> = []
  for (const phase of phases) {
    let left = components.filter((one) => one.phase === phase)
    while (left.length > 0) {
      const ready = left.filter((one) => one.needs.every((need) => done.has(need)))
      if (ready.length === 0) {
        throw new StartUpOrderError({ problem: `a cycle among ${left.map((one) => one.name).join(", ")}` })
      }
      result.push(ready)
      for (const one of ready) done.add(one.name)
      left = left.filter((one) => !done.has(one.name))
    }
  }
  return result
}

const pauses = Schedule.max([Schedule.exponential("1 second"), Schedule.recurs(3)])

/**
 * Start everything in the surrounding scope; closing it stops everything in reverse order. Returns what the
 * components offer. Limit: `limitMs` for the whole start.
 */
export const startUp = Effect.fn("startUp")(function* (
  components: ReadonlyArray<Component>,
  observer: StartUpObserver,
  limitMs: number
) {
  const order = yield* Effect.try({
    try: () => levels(components),
    catch: (error) => error as StartUpOrderError
  })
  const outer = yield* Effect.scope
  const scope = yield* Scope.fork(outer, "sequential")
  const all = Effect.gen(function* () {
    let offered = Context.empty() as Context.Context<any>
    for (const phase of phases) {
      const began = performance.now()
      for (const level of order) {
        if (level[0]?.phase !== phase) continue
        const parts = yield* Effect.forEach(level, (one) => startOne(one, offered, scope, observer), {
          concurrency: "unbounded"
        })
        for (const part of parts) offered = Context.merge(offered, part)
      }
      observer.phase(phase, (performance.now() - began) / 1000)
    }
    return offered
  })
  return yield* all.pipe(
    Effect.timeoutOrElse({
      duration: limitMs,
      orElse: () =>
        Effect.fail(
          new StartUpFailed({ component: "all", phase: "all", reason: `not ready within ${limitMs} ms` })
        )
    }),
    Effect.onError(() => Scope.close(scope, Exit.void))
  )
})

const startOne = Effect.fnUntraced(function* (
  one: Component,
  offered: Context.Context<any>,
  outer: Scope.Scope,
  observer: StartUpObserver
) {
  const began = performance.now()
  const seconds = () => (performance.now() - began) / 1000
  observer.component(one, "starting", 0)
  const attempt = Effect.gen(function* () {
    const scope = yield* Scope.fork(outer, "sequential")
    const built = Layer.buildWithScope(one.layer as unknown as Layer.Layer<any, unknown, never>, scope)
    return yield* built.pipe(
      Effect.provide(offered),
      Effect.onError(() => Scope.close(scope, Exit.void))
    )
  })
  const tried =
    one.level === "degraded"
      ? attempt.pipe(
          Effect.tapError((error) => Effect.sync(() => observer.error(one, reasonOf(error)))),
          Effect.retry({ schedule: pauses })
        )
      : attempt
  return yield* tried.pipe(
    Effect.tap(() => Effect.sync(() => observer.component(one, "up", seconds()))),
    Effect.catch((error) => {
      observer.error(one, reasonOf(error))
      observer.component(one, "failed", seconds())
      if (one.level === "critical") {
        return Effect.fail(
          new StartUpFailed({ component: one.name, phase: one.phase, reason: reasonOf(error) })
        )
      }
      return Effect.succeed(Context.empty() as Context.Context<any>)
    })
  )
})

/** Many typed errors carry `reason` and `path` and no message of their own. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.message !== "") return error.message
  const { reason, path } = error as { reason?: unknown; path?: unknown }
  return [path, reason ?? error.name].filter((part) => typeof part === "string").join(": ")
}
