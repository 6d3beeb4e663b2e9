/**
 * The nodes of a group as one of them reaches them. Each tells the others regularly that it is there, who the members are as it
 * knows them, and where they can be reached; so a node that was away for long learns of those that came meanwhile, from those that
 * it knows. Nobody else is listened to: who speaks has a certificate with which it may vote, and is a member.
 */
import { Effect, FiberSet } from "effect"
import type { Scope } from "effect"
import type { GroupMessage } from "../../kernel/group-node.ts"
import { mayVote } from "../ca/certificate.ts"
import { Endpoint, protocols } from "../link/endpoint.ts"
import type { Accepted } from "../link/endpoint.ts"
import { parseAddress } from "../link/address.ts"
import { decodeMessage, encodeMessage, NotUnderstood } from "./codec.ts"
import { Connection, lengthBytes } from "./connection.ts"

export interface PeersOptions {
  /** Where others reach this node. */
  readonly address: string
  /** Where to begin while no members are known. */
  readonly seeds: ReadonlyArray<string>
  /** As they were known when this node last ran. */
  readonly addresses: Readonly<Record<string, string>>
  /** Told whenever they change, to be kept. */
  readonly onAddresses: (addresses: Readonly<Record<string, string>>) => void
  /** Of the group, as this node knows it; none before it is in one. */
  readonly members: () => ReadonlyArray<string>
  readonly receive: (from: string, message: GroupMessage) => void
  /** A connection has ended, with what was under way on it; `isCurrent` when it was the one that was sent by. */
  readonly lost: (peer: string, isCurrent: boolean) => void
  readonly hereEveryMs: number
}

interface Here {
  readonly kind: "here"
  readonly members: ReadonlyArray<string>
  readonly addresses: Readonly<Record<string, string>>
}

export interface Peers {
  readonly send: (to: string, message: GroupMessage) => boolean
  readonly connected: () => ReadonlyArray<string>
  readonly addressOf: (id: string) => string | null
}

/** A connection on which nothing has come for so many of these is dead. */
const missed_max = 4
const addresses_max = 256

class Group {
  readonly #options: PeersOptions
  readonly #endpoint: Endpoint["Service"]
  readonly #run: (work: Effect.Effect<void>) => void
  readonly #connections = new Map<string, Connection>()
  readonly #all = new Set<Connection>()
  readonly #misses = new Map<Connection, number>()
  readonly #dialling = new Set<string>()
  readonly #addresses: Map<string, string>
  /** Of the seeds, by their certificates. */
  readonly #trusted = new Set<string>()
  /** Whom members say to be members. */
  #vouched: ReadonlySet<string> = new Set()
  #isOver = false

  constructor(
    options: PeersOptions,
    endpoint: Endpoint["Service"],
    run: (work: Effect.Effect<void>) => void
  ) {
    this.#options = options
    this.#endpoint = endpoint
    this.#run = run
    this.#addresses = new Map(Object.entries(options.addresses))
    for (const seed of options.seeds) {
      const node = parseAddress(seed)?.node
      if (node) this.#trusted.add(node)
    }
  }

  #isMember(peer: string): boolean {
    const members = this.#options.members()
    if (members.includes(peer) || this.#vouched.has(peer)) return true
    return members.length === 0 && this.#trusted.has(peer)
  }

  take({ socket, peer, certificate }: Accepted): void {
    if (this.#isOver || !mayVote(certificate)) return void socket.destroy()
    const connection: Connection = new Connection(
      socket,
      peer,
      (payload) => this.#receive(connection, payload),
      () => this.#ended(connection)
    )
    this.#all.add(connection)
    this.#connections.set(peer, connection)
    connection.send(this.#here())
  }

  #ended(connection: Connection): void {
    const { peer } = connection
    this.#all.delete(connection)
    this.#misses.delete(connection)
    const isCurrent = this.#connections.get(peer) === connection
    if (isCurrent) this.#connections.delete(peer)
    const other = [...this.#all].find((one) => one.peer === peer)
    if (isCurrent && other !== undefined) this.#connections.set(peer, other)
    // One that another has taken the place of had questions under way, too.
    this.#options.lost(peer, isCurrent)
  }

  #receive(connection: Connection, payload: Buffer): void {
    const { peer } = connection
    const here = hereOf(payload)
    if (here !== null) return this.#learn(peer, here)
    // Nobody's who is no member; and whoever is one will say it again.
    if (this.#isMember(peer)) this.#options.receive(peer, decodeMessage(payload))
  }

  #learn(peer: string, { members, addresses }: Here): void {
    // Where somebody is reached everyone may say of itself; of others, and who they are, only a member.
    const isMember = this.#isMember(peer)
    if (isMember) {
      this.#heardOf.set(peer, members)
      this.#vouched = new Set([...this.#heardOf].flatMap(([by, ids]) => (this.#isVoucher(by) ? ids : [])))
    }
    let isNew = false
    for (const [id, address] of Object.entries(addresses)) {
      if (id !== peer && !isMember) continue
      if (id === this.#endpoint.node || this.#addresses.get(id) === address) continue
      // Each knows best where it is itself.
      if (id !== peer && this.#connections.has(id)) continue
      if (parseAddress(address) === null || this.#addresses.size >= addresses_max) continue
      this.#addresses.set(id, address)
      isNew = true
    }
    if (isNew) this.#options.onAddresses(Object.fromEntries(this.#addresses))
  }

  readonly #heardOf = new Map<string, ReadonlyArray<string>>()

  #isVoucher(peer: string): boolean {
    const members = this.#options.members()
    return members.length === 0 ? this.#trusted.has(peer) : members.includes(peer)
  }

  #here(): Buffer {
    const { members, address } = this.#options
    const ids = members()
    const known = [...this.#addresses].filter(([id]) => ids.includes(id))
    const addresses = Object.fromEntries([...known, [this.#endpoint.node, address]])
    const text = JSON.stringify({ kind: "here", members: ids, addresses } satisfies Here)
    const frame = Buffer.allocUnsafe(lengthBytes + 4 + Buffer.byteLength(text))
    frame.writeUInt32LE(hereMark, lengthBytes)
    frame.write(text, lengthBytes + 4)
    return frame
  }

  send(to: string, message: GroupMessage): boolean {
    const connection = this.#connections.get(to)
    return connection !== undefined && connection.send(encodeMessage(message, lengthBytes))
  }

  connected(): ReadonlyArray<string> {
    return [...this.#connections.keys()]
  }

  addressOf(id: string): string | null {
    return this.#addresses.get(id) ?? null
  }

  /** Say that this node is there, end what is dead, and dial whom it wants and has no connection with. */
  tend(): void {
    for (const connection of this.#all) {
      const misses = connection.hasHeard() ? 0 : (this.#misses.get(connection) ?? 0) + 1
      this.#misses.set(connection, misses)
      if (misses >= missed_max) connection.end("nothing was heard")
      else connection.send(this.#here())
    }
    const members = this.#options.members()
    const wanted = [...members, ...this.#vouched].filter((id) => id !== this.#endpoint.node)
    for (const id of wanted) {
      const address = this.#addresses.get(id)
      if (!this.#connections.has(id) && address !== undefined) this.#dial(address, id)
    }
    if (wanted.some((id) => this.#connections.has(id))) return
    for (const seed of this.#options.seeds) this.#dial(seed, null)
  }

  #dial(address: string, id: string | null): void {
    const name = id ?? address
    if (this.#dialling.has(name)) return
    this.#dialling.add(name)
    const dialled = this.#endpoint.dial(address, protocols.group, id).pipe(
      Effect.map((accepted) => this.#dialled(accepted, id === null)),
      Effect.ignore,
      Effect.ensuring(Effect.sync(() => this.#dialling.delete(name)))
    )
    this.#run(dialled)
  }

  #dialled(accepted: Accepted, isSeed: boolean): void {
    const { peer, socket } = accepted
    if (isSeed) this.#trusted.add(peer)
    if (this.#connections.has(peer)) socket.destroy()
    else this.take(accepted)
  }

  close(): void {
    this.#isOver = true
    for (const connection of this.#all) connection.end("this node leaves")
  }
}

/** No message begins so: its head would be longer than any frame. */
const hereMark = 0xffffffff

function hereOf(payload: Buffer): Here | null {
  if (payload.length < 4 || payload.readUInt32LE(0) !== hereMark) return null
  try {
    const here = JSON.parse(payload.toString("utf8", 4)) as Here
    const isNames = Array.isArray(here.members) && here.members.every((id) => typeof id === "string")
    const isAddresses =
      typeof here.addresses === "object" &&
      here.addresses !== null &&
      Object.values(here.addresses).every((address) => typeof address === "string")
    if (here.members.length <= addresses_max && isNames && isAddresses) return here
  } catch {
    // As any other that is not understood.
  }
  throw new NotUnderstood("who is there is not said as it has to be")
}

/** Lives as long as the scope. */
export const makePeers = Effect.fn("Peers.make")(function* (
  options: PeersOptions
): Effect.fn.Return<Peers, never, Endpoint | Scope.Scope> {
  const endpoint = yield* Endpoint
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const group = new Group(options, endpoint, (work) => void fork(work))
  yield* endpoint.route({ protocol: protocols.group, take: (accepted) => group.take(accepted) })
  yield* Effect.addFinalizer(() => Effect.sync(() => group.close()))
  const tend = Effect.sync(() => group.tend())
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(tend, Effect.sleep(options.hereEveryMs))))
  return {
    send: (to, message) => group.send(to, message),
    connected: () => group.connected(),
    addressOf: (id) => group.addressOf(id)
  }
})
