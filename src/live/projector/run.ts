/** One build of one projection: its state, how far it has come, and whether a bug has stopped it. */
import type { Recorded } from "../../events/envelope.ts"
import { genesisHash } from "../../events/envelope.ts"
import type { AnyProjection } from "../../projections/projection.ts"
import type { Table } from "../../projections/table.ts"
import type { RunCheckpoint, StoredRun, ViewsFile } from "./views-file.ts"

export class Run {
  readonly projection: AnyProjection
  readonly run: number
  /** Version of the code that its state was built by. */
  readonly version: number
  state: unknown
  position: number
  #hash: string
  /** Why it stands still: its fold threw. What it had done with that fact is not stored. */
  failed: string | null = null

  constructor(projection: AnyProjection, from: StoredRun) {
    this.projection = projection
    this.run = from.run
    this.version = from.version
    this.position = from.position
    this.#hash = from.hash
    this.state = projection.initial()
  }

  /** A run that begins with the first fact. */
  static begin(projection: AnyProjection, run: number): Run {
    return new Run(projection, { run, version: projection.version, position: 0, hash: genesisHash })
  }

  get tables(): Readonly<Record<string, Table<unknown>>> {
    return this.projection.tables(this.state)
  }

  /** What a checkpoint would write. */
  get changedRows(): number {
    return Object.values(this.tables).reduce((rows, table) => rows + table.changedRows, 0)
  }

  restore(file: ViewsFile): void {
    file.restore(this.run, this.tables)
  }

  /** Apply those of these consecutive facts that are still to be applied. Returns the error that stopped it. */
  take(facts: ReadonlyArray<Recorded>): unknown {
    for (const fact of facts) {
      if (fact.position <= this.position || this.failed !== null) continue
      try {
        if (fact.position !== this.position + 1) throw new Error(`position ${this.position + 1} was left out`)
        this.state = this.projection.apply(this.state, fact)
      } catch (error) {
        this.failed = `position ${fact.position}: ${error instanceof Error ? error.message : String(error)}`
        return error
      }
      this.position = fact.position
      this.#hash = fact.hash
    }
    return null
  }

  /** Whether its state is fit to be kept in the file. */
  get isStored(): boolean {
    return this.failed === null
  }

  checkpoint(serving: boolean): RunCheckpoint {
    return {
      run: this.run,
      projection: this.projection.name,
      version: this.version,
      serving,
      position: this.position,
      hash: this.#hash,
      tables: this.tables
    }
  }
}
