/**
 * A list as a value: setting makes another one, which shares all but a path of at most log32(length) small arrays with the
 * one before. Tables of thousands of members, of which thousands are in one simulation, share what is the same in them.
 */
type Node<A> = ReadonlyArray<A | Node<A>>

const bits = 5
const width = 1 << bits
const mask = width - 1

export class Vector<A> {
  readonly length: number
  /** Of the root, how far an index is shifted to find its branch. */
  readonly #shift: number
  readonly #root: Node<A>

  private constructor(length: number, shift: number, root: Node<A>) {
    this.length = length
    this.#shift = shift
    this.#root = root
  }

  static empty<A>(): Vector<A> {
    return new Vector<A>(0, 0, [])
  }

  static of<A>(items: ReadonlyArray<A>): Vector<A> {
    let level: Array<A | Node<A>> = [...items]
    let shift = 0
    for (; level.length > width; shift += bits) {
      const above: Array<Node<A>> = []
      for (let from = 0; from < level.length; from += width) above.push(level.slice(from, from + width))
      level = above
    }
    return new Vector(items.length, shift, level)
  }

  /** Throws where there is nothing. */
  at(index: number): A {
    if (index < 0 || index >= this.length) throw new Error(`vector: ${index} of ${this.length}`)
    let node = this.#root
    for (let shift = this.#shift; shift > 0; shift -= bits) node = node[(index >>> shift) & mask] as Node<A>
    return node[index & mask] as A
  }

  set(index: number, item: A): Vector<A> {
    if (index < 0 || index >= this.length) throw new Error(`vector: ${index} of ${this.length}`)
    return new Vector(this.length, this.#shift, put(this.#root, this.#shift, index, item))
  }

  push(item: A): Vector<A> {
    const isFull = this.length === width << this.#shift
    const root = isFull ? [this.#root] : this.#root
    const shift = isFull ? this.#shift + bits : this.#shift
    return new Vector(this.length + 1, shift, put(root, shift, this.length, item))
  }

  /** Without the last one. */
  pop(): Vector<A> {
    if (this.length === 0) throw new Error("vector: nothing to take")
    const root = drop(this.#root, this.#shift, this.length - 1)
    const isDeep = this.#shift > 0 && root.length === 1
    return isDeep
      ? new Vector(this.length - 1, this.#shift - bits, root[0] as Node<A>)
      : new Vector(this.length - 1, this.#shift, root)
  }
}

function put<A>(node: Node<A>, shift: number, index: number, item: A): Node<A> {
  const copy = node.slice()
  const branch = (index >>> shift) & mask
  copy[branch] = shift === 0 ? item : put((node[branch] ?? []) as Node<A>, shift - bits, index, item)
  return copy
}

function drop<A>(node: Node<A>, shift: number, index: number): Node<A> {
  const branch = (index >>> shift) & mask
  if (shift === 0) return node.slice(0, branch)
  const inner = drop(node[branch] as Node<A>, shift - bits, index)
  return inner.length === 0 ? node.slice(0, branch) : [...node.slice(0, branch), inner]
}
