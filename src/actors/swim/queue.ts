/**
 * What waits to be told to others, as a value: of what was sent least the newest first, as often as a limit says
 * (SWIM, 4.1). An update that something newer has overtaken is dropped when its turn comes.
 */
import type { PeerUpdate } from "../../events/swim.ts"
import { updateBytes } from "../../events/swim-wire.ts"

interface Waiting {
  readonly update: PeerUpdate
  readonly sizeBytes: number
}

/** A stack: the newest is at its head. */
interface Stack {
  readonly head: Waiting
  readonly rest: Stack | null
}

/** Of those that don't fit into what is left of a datagram, so many are passed over to find one that does. */
const passed_max = 8

export interface Taken {
  readonly queue: Queue
  readonly updates: ReadonlyArray<PeerUpdate>
}

export class Queue {
  readonly length: number
  /** By how often they were sent. */
  readonly #sent: ReadonlyArray<Stack | null>

  private constructor(length: number, sent: ReadonlyArray<Stack | null>) {
    this.length = length
    this.#sent = sent
  }

  static readonly empty = new Queue(0, [])

  /** When there are `lengthMax`, one of those that were sent most goes. */
  add(update: PeerUpdate, lengthMax: number): Queue {
    const [fresh = null, ...sent] = this.#sent
    const added = new Queue(this.length + 1, [
      { head: { update, sizeBytes: updateBytes(update) }, rest: fresh },
      ...sent
    ])
    return added.length > lengthMax ? added.#shorter() : added
  }

  #shorter(): Queue {
    const sent = [...this.#sent]
    const most = sent.findLastIndex((stack) => stack !== null)
    sent[most] = sent[most]?.rest ?? null
    return new Queue(this.length - 1, sent)
  }

  /** As many as fit into `bytesMax`; each is sent `limit` times in all. */
  take(bytesMax: number, limit: number, isCurrent: (update: PeerUpdate) => boolean): Taken {
    const sent = [...this.#sent]
    const updates: Array<PeerUpdate> = []
    const again: Array<readonly [number, Waiting]> = []
    let [left, length, passed] = [bytesMax, this.length, 0]
    for (let times = 0; times < sent.length && passed < passed_max; times++) {
      let stack = sent[times] ?? null
      for (; stack !== null && passed < passed_max; stack = stack.rest) {
        const { head } = stack
        if (!isCurrent(head.update)) length--
        else if (head.sizeBytes > left) {
          passed++
          again.push([times, head])
        } else {
          left -= head.sizeBytes
          updates.push(head.update)
          if (times + 1 < limit) again.push([times + 1, head])
          else length--
        }
      }
      sent[times] = stack
    }
    for (const [times, head] of again.toReversed()) sent[times] = { head, rest: sent[times] ?? null }
    return { queue: new Queue(length, sent), updates }
  }
}
