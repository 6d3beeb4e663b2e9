/** Where others may be: addresses from the configuration, what a DNS name says, looked up again and again, and multicast DNS. */
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"
import { Effect } from "effect"
import { parseAddress } from "../link/address.ts"
import { addressText, GossipError } from "./member.ts"
import { Mdns } from "./mdns.ts"
import type { MdnsOptions } from "./mdns.ts"

export interface DiscoveryOptions {
  /** `host:port` each; a name stands for all its addresses. */
  readonly seeds: ReadonlyArray<string>
  readonly refreshMs: number
  readonly mdns: Omit<MdnsOptions, "found"> | null
  /** The addresses of a name. */
  readonly resolve: (name: string) => Promise<ReadonlyArray<string>>
  readonly found: (addresses: ReadonlyArray<string>) => void
}

const seeds_max = 64

/** By the machine's resolver: /etc/hosts, then DNS. */
export const resolveName = async (name: string): Promise<ReadonlyArray<string>> =>
  (await lookup(name, { all: true })).map(({ address }) => address)

/** Tells what is found whenever it is something else. Runs until interrupted; fails at once on a seed that is no address. */
export const discover = Effect.fn("gossip.discover")(function* (options: DiscoveryOptions) {
  const seeds: Array<{ readonly host: string; readonly port: number }> = []
  for (const [at, text] of options.seeds.entries()) {
    const address = parseAddress(text)
    if (address === null)
      return yield* new GossipError({ path: `gossip.seeds.${at}`, reason: `${text}: host:port is expected` })
    seeds.push(address)
  }
  let [told, named, heard]: [string, ReadonlyArray<string>, ReadonlyArray<string>] = ["", [], []]
  const tell = () => {
    const all = [...new Set([...named, ...heard])].slice(0, seeds_max)
    if (all.join() === told) return
    told = all.join()
    options.found(all)
  }
  if (options.mdns !== null) {
    const found = (addresses: ReadonlyArray<string>) => {
      heard = addresses
      tell()
    }
    // Without multicast there are still the seeds.
    yield* Mdns.open({ ...options.mdns, found }).pipe(
      Effect.catch((error) => Effect.logWarning("multicast DNS is not used", error))
    )
  }
  const known = new Map<string, ReadonlyArray<string>>()
  for (;;) {
    for (const { host, port } of seeds) {
      if (isIP(host) !== 0) {
        known.set(`${host} ${port}`, [addressText(host, port)])
        continue
      }
      // What was known of it stays while the name can't be resolved.
      yield* Effect.tryPromise(() => options.resolve(host)).pipe(
        Effect.tap((all) =>
          Effect.sync(() => known.set(`${host} ${port}`, all.map((one) => addressText(one, port)).sort()))
        ),
        Effect.catch((error) => Effect.logWarning(`${host} could not be resolved`, error))
      )
    }
    named = [...known.values()].flat()
    tell()
    yield* Effect.sleep(options.refreshMs)
  }
}, Effect.scoped)
