/**
 * The replicated log as a value: appending and cutting make another one. Logs that grow from one another share their
 * entries, as slices do in Go, so that an append costs what it adds and not what is there.
 */
import type { Entry } from "../../events/raft.ts"

export class Log {
  /** Index and term of the last entry that is only in a snapshot; 0 and 0 while there is none. */
  readonly base: number
  readonly baseTerm: number
  readonly last: number
  /** Entry `index` is at `index - #first`; may reach beyond `last`, into what another log has appended. */
  readonly #entries: Array<Entry>
  readonly #first: number

  private constructor(base: number, baseTerm: number, last: number, entries: Array<Entry>, first: number) {
    this.base = base
    this.baseTerm = baseTerm
    this.last = last
    this.#entries = entries
    this.#first = first
  }

  /** Without entries, after this index. */
  static after(base: number, baseTerm: number): Log {
    return new Log(base, baseTerm, base, [], base + 1)
  }

  get lastTerm(): number {
    return this.termAt(this.last) ?? 0
  }

  at(index: number): Entry | null {
    return index > this.base && index <= this.last ? (this.#entries[index - this.#first] ?? null) : null
  }

  /** Null where the log has no entry any more, or none yet. */
  termAt(index: number): number | null {
    return index === this.base ? this.baseTerm : (this.at(index)?.term ?? null)
  }

  /** With these, whose indexes follow each other, in the place of everything from the first one's index on. */
  append(entries: ReadonlyArray<Entry>): Log {
    const [first] = entries
    if (first === undefined) return this
    if (first.index <= this.base || first.index > this.last + 1)
      throw new Error(`raft: entry ${first.index} does not follow a log of ${this.base} to ${this.last}`)
    const end = first.index - this.#first
    // Whoever finds the shared entries longer than its own log shares them with a longer one: with the very same, where a
    // step has appended what its fact appends again, or with another.
    let there = 0
    while (there < entries.length && this.#entries[end + there] === entries[there]) there++
    const isShared = there === entries.length || this.#entries.length === end + there
    const own = isShared ? this.#entries : this.#entries.slice(0, end + there)
    for (const entry of entries.slice(there)) own.push(entry)
    return new Log(this.base, this.baseTerm, first.index + entries.length - 1, own, this.#first)
  }

  /** Without the entries up to this one. */
  compact(index: number): Log {
    const term = this.termAt(index)
    if (term === null) throw new Error(`raft: ${index} is not in a log of ${this.base} to ${this.last}`)
    const kept = this.#entries.slice(index + 1 - this.#first, this.last + 1 - this.#first)
    return new Log(index, term, this.last, kept, index + 1)
  }

  /** From `from` to `to`, at most `bytesMax` of data, but at least one entry where there is one. */
  slice(
    from: number,
    to: number = this.last,
    bytesMax: number = Number.POSITIVE_INFINITY
  ): ReadonlyArray<Entry> {
    const end = Math.min(to, this.last)
    let bytes = 0
    let index = from
    for (; index <= end; index++) {
      bytes += bytesOf(this.at(index))
      if (bytes > bytesMax && index > from) break
    }
    return index > from ? this.#entries.slice(from - this.#first, index - this.#first) : []
  }

  bytes(from: number, to: number): number {
    let bytes = 0
    for (let index = from; index <= to; index++) bytes += bytesOf(this.at(index))
    return bytes
  }

  /** The highest index up to `index` whose term is not above `term`: where two logs may still be the same. */
  agreeing(index: number, term: number): { readonly index: number; readonly term: number } {
    let at = Math.min(index, this.last)
    while (at > this.base && (this.termAt(at) ?? 0) > term) at--
    return { index: at, term: this.termAt(at) ?? 0 }
  }

  /** Whether a log that ends so is at least as new as this one (thesis, 3.6.1). */
  isUpToDate(lastIndex: number, lastTerm: number): boolean {
    return lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.last)
  }
}

/** An entry without data still takes room. */
export const bytesOf = (entry: Entry | null): number => (entry?.data?.length ?? 0) + 16
