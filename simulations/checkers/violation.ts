/** What a checker found: the promise that was broken, and how. */
export type Promised =
  | "election-safety"
  | "leader-completeness"
  | "log-matching"
  | "state-machine-safety"
  | "monotone"
  | "durability"
  | "exactly-once"
  | "linearizability"
  | "lease"
  | "replay"
  | "bounded"
  | "liveness"
  | "accuracy"
  | "completeness"
  | "convergence"
  | "crash"
  | "one-owner"
  | "no-machine-lost"
  | "one-ending"
  | "capacity"

export class Violation extends Error {
  readonly promised: Promised

  constructor(promised: Promised, message: string) {
    super(`${promised}: ${message}`)
    this.promised = promised
  }
}

/** Runs a life to its end: what it found, or what it died of; null when every promise was kept. */
export function violationOf(run: () => void): Violation | null {
  try {
    run()
    return null
  } catch (error) {
    if (error instanceof Violation) return error
    return new Violation("crash", error instanceof Error ? (error.stack ?? error.message) : String(error))
  }
}

/** What is looked at within a fiber, which would end of it, and the world go on: told by `look`, outside of it. */
export class Noticed {
  #first: { readonly error: unknown } | null = null

  within(looked: () => void): void {
    try {
      looked()
    } catch (error) {
      this.#first ??= { error }
    }
  }

  look(): void {
    if (this.#first !== null) throw this.#first.error
  }
}
