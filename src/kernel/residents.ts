/** The actors in memory, all that there are but those that were forgotten for a moment. */
import type { ActorState } from "./turn.ts"

/**
 * By stream. Every actor that has facts is here, or is one of `forgotten`: a checkpoint says that all facts up to its position
 * are covered by snapshots, and so has to know whom it does not find here.
 */
export class Residents extends Map<string, ActorState> {
  readonly forgotten = new Set<string>()

  /** What is known of it is not what the store has, or not all of it: it is loaded when it is asked for, and for a checkpoint. */
  forget(stream: string): void {
    this.delete(stream)
    this.forgotten.add(stream)
  }
}
