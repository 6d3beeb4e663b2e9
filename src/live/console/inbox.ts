/** What is on its way to one viewer: bounded, so that who reads slowly misses something and holds nobody up. */
import { Effect, Latch } from "effect"
import type { ConsoleNotice } from "./protocol.ts"

export type ConsoleItem = Uint8Array | ConsoleNotice

const waitingBytes_max = 256 * 1024
const notices_max = 64

export class Inbox {
  #items: Array<ConsoleItem> = []
  #bytes = 0
  #notices = 0
  #skipped = 0
  #closed = false
  readonly #filled = Latch.makeUnsafe(false)

  data(octets: Uint8Array): void {
    if (this.#closed) return
    if (this.#skipped > 0 || this.#bytes + octets.length > waitingBytes_max) this.#skipped += octets.length
    else {
      this.#items.push(octets)
      this.#bytes += octets.length
    }
    this.#filled.openUnsafe()
  }

  /** `closed` is the last one; nothing is taken after it. */
  notice(notice: ConsoleNotice): void {
    if (this.#closed) return
    this.#closed = notice.type === "closed"
    if (!this.#closed && this.#notices >= notices_max) return
    this.#notices += 1
    this.#items.push(notice)
    this.#filled.openUnsafe()
  }

  /** All that has come since, at least one; what was skipped is told at its place. */
  readonly take: Effect.Effect<ReadonlyArray<ConsoleItem>> = Effect.suspend(() =>
    Effect.map(this.#filled.await, () => {
      const items = this.#items
      if (this.#skipped > 0) {
        const skipped: ConsoleNotice = { type: "skipped", bytes: this.#skipped }
        const at = items.findIndex((item) => !(item instanceof Uint8Array) && item.type === "closed")
        items.splice(at < 0 ? items.length : at, 0, skipped)
      }
      this.#items = []
      this.#bytes = 0
      this.#notices = 0
      this.#skipped = 0
      this.#filled.closeUnsafe()
      return items
    })
  )
}
