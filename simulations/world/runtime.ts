/**
 * Effect in virtual time: its fibers, clock and chance are those of a simulated world. Whatever a fiber has to do next
 * stands in the world's schedule, so the seed says which of several goes first, and nothing waits for the machine's own
 * timers or event loop. A world of fibers runs from within `Schedule.runUntil`, without a promise.
 */
import { Clock, Context, Duration, Effect, Exit, Random as EffectRandom, References, Scheduler } from "effect"
import type { Fiber } from "effect"
import type { Random } from "./random.ts"
import type { Schedule } from "./schedule.ts"

export interface RuntimeOptions {
  /** Milliseconds since the Unix epoch at which the world begins. */
  readonly epochMs: number
}

/** A day that nobody chose: facts carry whole milliseconds since the Unix epoch. */
export const epochMs = Date.UTC(2030, 0, 1)

/** Of whole milliseconds, as a system's clock is. */
class WorldClock implements Clock.Clock {
  readonly #schedule: Schedule
  readonly #epochMs: number
  readonly currentTimeMillis = Effect.sync(() => this.currentTimeMillisUnsafe())
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())
  readonly monotonicTimeNanos = Effect.sync(() => this.monotonicTimeNanosUnsafe())

  constructor(schedule: Schedule, options: RuntimeOptions) {
    this.#schedule = schedule
    this.#epochMs = options.epochMs
  }

  currentTimeMillisUnsafe(): number {
    return this.#epochMs + Math.floor(this.#schedule.nowMs)
  }

  currentTimeNanosUnsafe(): bigint {
    return BigInt(this.#epochMs) * 1_000_000n + this.monotonicTimeNanosUnsafe()
  }

  monotonicTimeNanosUnsafe(): bigint {
    return BigInt(Math.floor(this.#schedule.nowMs * 1_000_000))
  }

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    const ms = Duration.toMillis(duration)
    return Effect.callback<void>((resume) => {
      // Who sleeps for ever is only ever interrupted.
      if (!Number.isFinite(ms)) return
      return Effect.sync(this.#schedule.cancellable(ms, () => resume(Effect.void)))
    })
  }
}

function worldScheduler(schedule: Schedule): Scheduler.Scheduler {
  const dispatcher: Scheduler.SchedulerDispatcher = {
    scheduleTask: (task) => schedule.after(0, task),
    flush: () => {
      throw new Error("a fiber of the simulated world was asked to end at once: use runUntil")
    }
  }
  return {
    executionMode: "async",
    shouldYield: (fiber) => fiber.currentOpCount >= fiber.cache.maxOpsBeforeYield,
    makeDispatcher: () => dispatcher
  }
}

/** `Math.random` and the tracer's ids are of the machine: neither is used in here. */
function worldContext(schedule: Schedule, random: Random, options: RuntimeOptions): Context.Context<never> {
  return Context.empty().pipe(
    Context.add(Clock.Clock, new WorldClock(schedule, options)),
    Context.add(Scheduler.Scheduler, worldScheduler(schedule)),
    Context.add(EffectRandom.Random, {
      nextDoubleUnsafe: () => random.next(),
      nextIntUnsafe: () => Math.floor((random.next() * 2 - 1) * Number.MAX_SAFE_INTEGER)
    }),
    Context.add(References.TracerEnabled, false),
    Context.add(References.CurrentLoggers, new Set())
  )
}

/** The fibers of one world. */
export class Runtime {
  readonly schedule: Schedule
  readonly #context: Context.Context<never>

  constructor(schedule: Schedule, random: Random, options: RuntimeOptions = { epochMs }) {
    this.schedule = schedule
    this.#context = worldContext(schedule, random, options)
  }

  /** Begins at once, and goes on as the schedule does. */
  fork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(this.#context)(effect)
  }

  /** `told` is called when it has ended. */
  start<A, E>(effect: Effect.Effect<A, E>, told: (exit: Exit.Exit<A, E>) => void): void {
    this.fork(effect).addObserver(told)
  }

  /** Lets the world go on until this has ended. Throws what it fails with, or when it takes longer than `limitMs`. */
  run<A, E>(effect: Effect.Effect<A, E>, limitMs: number): A {
    const fiber = this.fork(effect)
    const endMs = this.schedule.nowMs + limitMs
    while (fiber.pollUnsafe() === undefined) {
      if (!this.schedule.step(endMs)) throw new Error(`not done within ${limitMs} ms of the world`)
    }
    const exit = fiber.pollUnsafe() as Exit.Exit<A, E>
    if (Exit.isSuccess(exit)) return exit.value
    throw new Error(`a fiber failed: ${exit.cause}`, { cause: exit.cause })
  }
}
