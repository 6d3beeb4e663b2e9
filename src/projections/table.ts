/**
 * Rows by key, in the order of their first appearance, that remember which of them changed since they were last
 * stored: a checkpoint writes those only.
 */
export interface RowChange {
  readonly key: string
  /** The row as JSON text, null when it is gone. */
  readonly text: string | null
  /** The row was taken out and put in again: its place is at the end. */
  readonly moved: boolean
}

export class Table<Row> implements Iterable<readonly [string, Row]> {
  readonly #rows = new Map<string, Row>()
  /** By key: whether the stored row, if any, has lost its place. */
  #changed = new Map<string, boolean>()

  get size(): number {
    return this.#rows.size
  }

  get(key: string): Row | undefined {
    return this.#rows.get(key)
  }

  /** `row` is not to be changed afterwards. */
  set(key: string, row: Row): void {
    if (!this.#rows.has(key)) {
      const moved = this.#changed.delete(key)
      this.#changed.set(key, moved)
    } else if (!this.#changed.has(key)) this.#changed.set(key, false)
    this.#rows.set(key, row)
  }

  delete(key: string): void {
    if (!this.#rows.delete(key)) return
    this.#changed.delete(key)
    this.#changed.set(key, true)
  }

  /** Replace the row of this key, if there is one. */
  update(key: string, change: (row: Row) => Row): void {
    const row = this.#rows.get(key)
    if (row !== undefined) this.set(key, change(row))
  }

  values(): IterableIterator<Row> {
    return this.#rows.values()
  }

  [Symbol.iterator](): Iterator<readonly [string, Row]> {
    return this.#rows.entries()
  }

  get changedRows(): number {
    return this.#changed.size
  }

  /** What changed since `settle` was last called, in the order that keeps the rows' order. */
  *changes(): Generator<RowChange> {
    for (const [key, moved] of this.#changed) {
      const row = this.#rows.get(key)
      yield { key, text: row === undefined ? null : JSON.stringify(row), moved }
    }
  }

  /** The changes are stored. */
  settle(): void {
    this.#changed = new Map()
  }

  /** Put a stored row back; it does not count as changed. */
  restore(key: string, text: string): void {
    this.#rows.set(key, JSON.parse(text) as Row)
  }
}

/** All rows of these tables as one text: equal states, equal texts. */
export function textOf(tables: Readonly<Record<string, Table<unknown>>>): string {
  return JSON.stringify(Object.entries(tables).map(([name, table]) => [name, [...table]]))
}
