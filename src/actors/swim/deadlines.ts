/**
 * What is due for members, the earliest first, as a value: a leftist heap (Okasaki, 3.1). Who was put off, or needs it no
 * more, is found out when its time comes.
 */
interface Node {
  readonly atMs: number
  readonly id: string
  /** Of the path to the right. */
  readonly rank: number
  readonly left: Node | null
  readonly right: Node | null
}

function merged(one: Node | null, other: Node | null): Node | null {
  if (one === null) return other
  if (other === null) return one
  const [least, more] = one.atMs <= other.atMs ? [one, other] : [other, one]
  const below = merged(least.right, more)
  const { atMs, id, left } = least
  const leftRank = left?.rank ?? 0
  const belowRank = below?.rank ?? 0
  return leftRank >= belowRank
    ? { atMs, id, rank: belowRank + 1, left, right: below }
    : { atMs, id, rank: leftRank + 1, left: below, right: left }
}

export class Deadlines {
  readonly length: number
  readonly #root: Node | null

  private constructor(length: number, root: Node | null) {
    this.length = length
    this.#root = root
  }

  static readonly empty = new Deadlines(0, null)

  /** Infinity when nothing is due ever. */
  get nextMs(): number {
    return this.#root?.atMs ?? Number.POSITIVE_INFINITY
  }

  /** Of the earliest. */
  get next(): string | null {
    return this.#root?.id ?? null
  }

  add(atMs: number, id: string): Deadlines {
    return new Deadlines(this.length + 1, merged(this.#root, { atMs, id, rank: 1, left: null, right: null }))
  }

  /** Without the earliest. */
  rest(): Deadlines {
    const root = this.#root
    return root === null ? this : new Deadlines(this.length - 1, merged(root.left, root.right))
  }
}
