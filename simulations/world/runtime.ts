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

/** How time passes for some fibers: those of the world itself, or of a process, which may stand still, and ends. */
export interface Pace {
  /** Milliseconds since the Unix epoch, as its clock shows them. */
  readonly wallMs: () => number
  /** From a moment of its own on; never goes back. */
  readonly steadyMs: () => number
  readonly after: (delayMs: number, run: () => void) => void
  /** `after` that can be taken back: by what it returns. */
  readonly cancellable: (delayMs: number, run: () => void) => () => void
}

const worldPace = (schedule: Schedule, { epochMs: began }: RuntimeOptions): Pace => ({
  wallMs: () => began + Math.floor(schedule.nowMs),
  steadyMs: () => schedule.nowMs,
  after: (delayMs, run) => schedule.after(delayMs, run),
  cancellable: (delayMs, run) => schedule.cancellable(delayMs, run)
})

/** Of whole milliseconds, as a system's clock is. */
class PacedClock implements Clock.Clock {
  readonly #pace: Pace
  readonly currentTimeMillis = Effect.sync(() => this.currentTimeMillisUnsafe())
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())
  readonly monotonicTimeNanos = Effect.sync(() => this.monotonicTimeNanosUnsafe())

  constructor(pace: Pace) {
    this.#pace = pace
  }

  currentTimeMillisUnsafe(): number {
    return this.#pace.wallMs()
  }

  currentTimeNanosUnsafe(): bigint {
    return BigInt(this.#pace.wallMs()) * 1_000_000n
  }

  monotonicTimeNanosUnsafe(): bigint {
    return BigInt(Math.floor(this.#pace.steadyMs() * 1_000_000))
  }

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    const ms = Duration.toMillis(duration)
    return Effect.callback<void>((resume) => {
      // Who sleeps for ever is only ever interrupted.
      if (!Number.isFinite(ms)) return
      return Effect.sync(this.#pace.cancellable(ms, () => resume(Effect.void)))
    })
  }
}

function pacedScheduler(pace: Pace): Scheduler.Scheduler {
  const dispatcher: Scheduler.SchedulerDispatcher = {
    scheduleTask: (task) => pace.after(0, task),
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
function pacedContext(pace: Pace, random: Random): Context.Context<never> {
  return Context.empty().pipe(
    Context.add(Clock.Clock, new PacedClock(pace)),
    Context.add(Scheduler.Scheduler, pacedScheduler(pace)),
    Context.add(EffectRandom.Random, {
      nextDoubleUnsafe: () => random.next(),
      nextIntUnsafe: () => Math.floor((random.next() * 2 - 1) * Number.MAX_SAFE_INTEGER)
    }),
    Context.add(References.TracerEnabled, false),
    Context.add(References.CurrentLoggers, new Set())
  )
}

/** The fibers of one world, or of one process in it. */
export class Runtime {
  readonly schedule: Schedule
  readonly #context: Context.Context<never>

  constructor(
    schedule: Schedule,
    random: Random,
    options: RuntimeOptions & { readonly pace?: Pace } = { epochMs }
  ) {
    this.schedule = schedule
    this.#context = pacedContext(options.pace ?? worldPace(schedule, options), random)
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
