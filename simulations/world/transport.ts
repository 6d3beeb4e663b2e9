/** The Transport port where all hosts are in one fleet: a channel's path names the host that it leads to. */
import { Effect, Layer } from "effect"
import { Transport } from "../../src/kernel/ports/transport.ts"

/** `address` is the destination host's name. */
export const simTransport: Layer.Layer<Transport> = Layer.succeed(Transport, {
  accept: () => Effect.void,
  open: (transfer, address, channels) =>
    Effect.succeed(channels.map((name) => ({ name, path: `sim:${address}/${transfer}/${name}` }))),
  statistics: () => Effect.succeed({ sentBytes: 0, receivedBytes: 0 }),
  close: () => Effect.void
})
