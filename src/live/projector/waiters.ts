/** Those who wait for projections to reach a position. */
import { Effect, Schema } from "effect"
import type { Run } from "./run.ts"

/** A projection has not come as far as was asked, in time or at all. */
export class NotCaughtUp extends Schema.TaggedError<NotCaughtUp>()("NotCaughtUp", {
  projection: Schema.String,
  position: Schema.Int,
  reached: Schema.Int,
  reason: Schema.String
}) {
  override get message(): string {
    return `the view ${this.projection} is at position ${this.reached}, not ${this.position}: ${this.reason}`
  }
}

type Outcome = Effect.Effect<void, NotCaughtUp>

interface Waiting {
  readonly position: number
  readonly runs: () => ReadonlyArray<Run>
  readonly resume: (outcome: Outcome) => void
}

const waiting_max = 10_000

const notCaughtUp = (run: Run | undefined, position: number, reason: string): NotCaughtUp =>
  new NotCaughtUp({
    projection: run?.projection.name ?? "",
    position,
    reached: run?.position ?? 0,
    reason
  })

/** Null while there is still something to wait for. */
function outcomeOf({ position, runs }: Pick<Waiting, "position" | "runs">): Outcome | null {
  const behind = runs().filter((run) => run.position < position)
  const stopped = behind.find((run) => run.failed !== null)
  if (stopped?.failed) return Effect.fail(notCaughtUp(stopped, position, `it stopped at ${stopped.failed}`))
  return behind.length === 0 ? Effect.void : null
}

export class PositionWaiters {
  readonly #waiting = new Set<Waiting>()

  /** Let those go on whose position is reached. */
  wake(): void {
    for (const one of this.#waiting) {
      const outcome = outcomeOf(one)
      if (outcome === null) continue
      this.#waiting.delete(one)
      one.resume(outcome)
    }
  }

  wait(position: number, runs: () => ReadonlyArray<Run>, timeoutMs: number): Outcome {
    const behind = () => runs().find((run) => run.position < position)
    const reached = Effect.callback<void, NotCaughtUp>((resume) => {
      const now = outcomeOf({ position, runs })
      if (now !== null) return resume(now)
      if (this.#waiting.size >= waiting_max)
        return resume(Effect.fail(notCaughtUp(behind(), position, `${waiting_max} wait already`)))
      const one = { position, runs, resume }
      this.#waiting.add(one)
      return Effect.sync(() => {
        this.#waiting.delete(one)
      })
    })
    return Effect.timeoutOrElse(reached, {
      duration: timeoutMs,
      orElse: () =>
        Effect.suspend(() => Effect.fail(notCaughtUp(behind(), position, `not within ${timeoutMs} ms`)))
    })
  }
}
