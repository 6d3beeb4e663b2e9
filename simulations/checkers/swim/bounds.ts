/** Everything has a limit: what waits, what is relayed, what is known, and every datagram, which is read as it was written. */
import type { SwimDatagram } from "../../../src/events/swim.ts"
import { decodeDatagram, encodeDatagram } from "../../../src/events/swim-wire.ts"
import type { Member } from "../../swim/member.ts"
import { Violation } from "../violation.ts"

/** Each so many datagrams one is read again. */
const readEvery = 16

export class Bounds {
  bytesMost = 0
  #sent = 0

  stepped({ id, context, options, replica }: Member): void {
    const { queueMax, relayedMax, membersMax, healthMax } = options.settings
    const { queue, relayed, table, health, deadlines } = context
    for (const [name, value, most] of [
      ["updates wait", queue.length, queueMax],
      ["probes are relayed", relayed.length, relayedMax],
      ["members are known", table.length, membersMax],
      ["is the local health", health, healthMax],
      ["deadlines are kept", deadlines.length, 8 * table.length + 64],
      ["requests are held", replica.held, 10_000]
    ] as const)
      if (value > most) throw new Violation("bounded", `${id}: ${value} ${name}, allowed are ${most}`)
    if (queue.length < 0 || health < 0) throw new Violation("bounded", `${id}: less than nothing waits`)
  }

  sent({ id, options }: Member, datagram: SwimDatagram): void {
    const text = encodeDatagram(datagram)
    this.bytesMost = Math.max(this.bytesMost, text.length)
    if (text.length > options.settings.datagramBytesMax)
      throw new Violation("bounded", `${id} sends ${text.length} bytes: ${text.slice(0, 100)}`)
    if (this.#sent++ % readEvery === 0 && encodeDatagram(decodeDatagram(text)) !== text)
      throw new Violation("bounded", `${id}: a datagram is read as another: ${text.slice(0, 100)}`)
  }
}
