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
