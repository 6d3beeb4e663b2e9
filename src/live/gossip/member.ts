/**
 * The process around a member of SWIM: the production actor in the replica, on a UDP socket, a clock and a small file. Whatever
 * comes that is not sealed by this cluster, or is no datagram of the protocol, is counted and dropped.
 */
import { randomInt } from "node:crypto"
import { createSocket } from "node:dgram"
import type { RemoteInfo, Socket } from "node:dgram"
import { isIPv6 } from "node:net"
import { performance } from "node:perf_hooks"
import { Effect, Schema } from "effect"
import type { Message } from "../../events/envelope.ts"
import { SwimCommand } from "../../events/swim.ts"
import type { PeerUpdate, PeerView, SwimDatagram, SwimRequest, SwimSettings } from "../../events/swim.ts"
import { decodeDatagram, encodeDatagram } from "../../events/swim-wire.ts"
import type { ActorKind } from "../../kernel/actor.ts"
import { Replica } from "../../kernel/replica.ts"
import { parseAddress } from "../link/address.ts"
import { readIncarnation, writeIncarnation } from "./incarnation-file.ts"
import type { GossipFileError } from "./incarnation-file.ts"
import type { ClusterKey } from "./keys.ts"
import { sealBytes, Sealing } from "./sealing.ts"
import type { Refused } from "./sealing.ts"

export class GossipError extends Schema.TaggedError<GossipError>()("GossipError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

export type Changed = Extract<SwimRequest, { readonly op: "changed" }>

export interface GossipOptions {
  /** The actor, and when it wants to be woken; given by whoever puts the node together. */
  readonly actor: ActorKind
  readonly wakesAtMs: (role: string, context: never) => number
  readonly id: string
  /** An address of this machine, not a name. Port 0 takes any. */
  readonly listen: { readonly host: string; readonly port: number }
  /** Where others reach it, by the port that it has; null for where it listens. */
  readonly advertised: ((port: number) => string) | null
  readonly meta: string
  readonly settings: SwimSettings
  readonly keys: ReadonlyArray<ClusterKey>
  readonly incarnationFile: string
  /** Somebody came, went, or tells something else. */
  readonly changed: (changed: Changed) => void
  /** The file could not be written: the member is silent from now on. */
  readonly failed: (error: GossipFileError) => void
}

export type Dropped = Refused | "undecodable"
export type GossipCounts = Record<Dropped | "received" | "sent" | "unsent" | "probes" | "relayed", number> &
  Record<"suspected" | "refuted" | "failed", number>

/** How old a datagram may be, and how far clocks may be apart. */
const ageMsMax = 120_000
const timerMsMax = 2 ** 31 - 1

interface Known {
  readonly table: {
    readonly length: number
    readonly at: (place: number) => PeerView
    readonly get: (id: string) => PeerView | null
  }
  readonly incarnation: number
}

export class GossipMember {
  readonly #options: GossipOptions
  readonly #socket: Socket
  readonly #sealing: Sealing
  readonly #replica: Replica<SwimRequest>
  readonly address: string
  readonly counts: GossipCounts = {
    malformed: 0,
    "unknown-key": 0,
    forged: 0,
    stale: 0,
    replayed: 0,
    undecodable: 0,
    received: 0,
    sent: 0,
    unsent: 0,
    // Pings, for others too; and what others were asked to ping.
    probes: 0,
    relayed: 0,
    // What came of them here.
    suspected: 0,
    refuted: 0,
    failed: 0
  }
  #timer: NodeJS.Timeout | null = null
  #isOpen = true
  /** What is written next to the file, and how many facts that stands for. */
  #unwritten = { incarnation: 0, facts: 0 }
  #isWriting = false
  #left: (() => void) | null = null

  private constructor(options: GossipOptions, socket: Socket, incarnation: number) {
    this.#options = options
    this.#socket = socket
    const { keys, settings, advertised } = options
    const sessionsMax = 4 * settings.membersMax
    this.#sealing = new Sealing({ keys, ageMsMax, sessionsMax, wallClockMs: () => Date.now() })
    const bound = socket.address()
    this.address = advertised?.(bound.port) ?? addressText(bound.address, bound.port)
    this.#replica = new Replica<SwimRequest>(options.actor, `swim/${options.id}`)
    this.#replica.restore([{ type: "swim.incarnated", incarnation }])
    socket.on("message", (datagram, from) => this.#receive(datagram, from))
    // A receiver that is not there is no error of this member.
    socket.on("error", () => this.counts.unsent++)
  }

  /** Bind the socket and begin, in a new incarnation; the socket closes with the scope. */
  static open(options: GossipOptions) {
    return Effect.acquireRelease(
      Effect.gen(function* () {
        yield* checked(options)
        const incarnation = yield* readIncarnation(options.incarnationFile)
        const socket = yield* bind(options.listen)
        const member = new GossipMember(options, socket, incarnation)
        const { id, meta, settings } = options
        member.#take({ type: "swim.begin", id, address: member.address, meta, settings, chance: chance() })
        return member
      }),
      (member) => Effect.sync(() => member.close())
    )
  }

  get role(): string {
    return this.#replica.state.value as string
  }

  get incarnation(): number {
    return this.#known.incarnation
  }

  /** Everybody that is known, this member too. */
  peers(): ReadonlyArray<PeerView> {
    const { table } = this.#known
    return Array.from({ length: table.length }, (_, place) => viewOf(table.at(place)))
  }

  /** Null of a stranger. */
  peer(id: string): PeerView | null {
    const found = this.#known.table.get(id)
    return found === null ? null : viewOf(found)
  }

  /**
   * What the journal still knows of a member and this one does not: as if somebody had said it. That it lives is what a table
   * holds, and is probed; that it is gone is news, which reaches the member itself, and is refuted when it is not so.
   */
  recall(update: PeerUpdate): void {
    const head = { type: update.status === "alive" ? ("entries" as const) : ("gossip" as const) }
    const datagram = { from: recaller, head, updates: [update] }
    this.#take({ type: "swim.receive", address: this.address, datagram, chance: chance() })
  }

  get #known(): Known {
    return this.#replica.state.context as Known
  }

  join(seeds: ReadonlyArray<string>): void {
    this.#take({ type: "swim.join", seeds, chance: chance() })
  }

  describe(meta: string): void {
    this.#take({ type: "swim.describe", meta, chance: chance() })
  }

  /** Datagrams are sealed with the first of these from now on. */
  replaceKeys(keys: ReadonlyArray<ClusterKey>): void {
    this.#sealing.replaceKeys(keys)
  }

  /** Others are told; done when that was said for long enough. */
  leave(): Promise<void> {
    return new Promise((resolve) => {
      if (!this.#isOpen || this.role === "left") resolve()
      else {
        this.#left = resolve
        this.#take({ type: "swim.leave", chance: chance() })
      }
    })
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#socket.close()
    this.#left?.()
  }

  #take(input: SwimCommand): void {
    if (!this.#isOpen) return
    const { now, facts } = this.#replica.take(input as Message, nowMs())
    if (facts.length > 0) this.#keep(facts)
    for (const request of now) this.#perform(request)
    this.#wake()
  }

  #receive(datagram: Buffer, from: RemoteInfo): void {
    this.counts.received++
    if (datagram.length > this.#options.settings.datagramBytesMax + sealBytes) {
      this.counts.malformed++
      return
    }
    const opened = this.#sealing.open(datagram)
    if (!opened.ok) {
      this.counts[opened.reason]++
      return
    }
    let said: SwimDatagram
    try {
      said = decodeDatagram(opened.text)
    } catch {
      this.counts.undecodable++
      return
    }
    const address = addressText(from.address, from.port)
    this.#take({ type: "swim.receive", address, datagram: said, chance: chance() })
  }

  #perform(request: SwimRequest): void {
    if (request.port === "datagram") this.#send(request.to, request.datagram)
    else if (request.port === "peers") {
      if (request.op === "changed") this.#note(request)
    } else {
      this.#left?.()
      this.#left = null
    }
  }

  #note(changed: Changed): void {
    const { before, peer } = changed
    if (before === "alive" && peer.status === "suspect") this.counts.suspected++
    if (before === "suspect" && peer.status === "alive") this.counts.refuted++
    if (peer.status === "dead") this.counts.failed++
    this.#options.changed(changed)
  }

  #send(to: string, datagram: SwimDatagram): void {
    const address = parseAddress(to)
    if (address === null || !this.#isOpen) {
      this.counts.unsent++
      return
    }
    this.counts.sent++
    if (datagram.head.type === "ping") this.counts.probes++
    if (datagram.head.type === "pingRequest") this.counts.relayed++
    this.#socket.send(this.#sealing.seal(encodeDatagram(datagram)), address.port, address.host, (error) => {
      if (error !== null) this.counts.unsent++
    })
  }

  #keep(facts: ReadonlyArray<Message>): void {
    const last = facts.at(-1)?.["incarnation"] as number
    this.#unwritten = { incarnation: last, facts: this.#unwritten.facts + facts.length }
    if (!this.#isWriting) this.#write()
  }

  /** One write at a time; what was asked after these facts goes out when they are there. */
  #write(): void {
    const { incarnation, facts } = this.#unwritten
    this.#unwritten = { incarnation, facts: 0 }
    this.#isWriting = true
    const done = Effect.match(writeIncarnation(this.#options.incarnationFile, incarnation), {
      onSuccess: () => {
        this.#isWriting = false
        for (const request of this.#replica.stored(facts)) this.#perform(request)
        if (this.#unwritten.facts > 0 && this.#isOpen) this.#write()
      },
      onFailure: (error) => {
        if (!this.#isOpen) return
        this.close()
        this.#options.failed(error)
      }
    })
    Effect.runFork(done)
  }

  #wake(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (!this.#isOpen) return
    const dueMs = this.#options.wakesAtMs(this.role, this.#replica.state.context as never)
    if (dueMs === Number.POSITIVE_INFINITY) return
    const waitMs = Math.min(timerMsMax, Math.max(0, dueMs - performance.now()))
    this.#timer = setTimeout(() => {
      this.#timer = null
      this.#take({ type: "swim.tick", chance: chance() })
    }, Math.ceil(waitMs))
  }
}

/** No node's name. */
const recaller = "-"

const viewOf = ({ id, status, incarnation, address, meta }: PeerView): PeerView => ({
  id,
  status,
  incarnation,
  address,
  meta
})

const decodeBegin = Schema.decodeUnknownEffect(SwimCommand)

/** Everything that others, or the protocol, rely on; the address is known when the socket is bound. */
const checked = ({ id, meta, settings, advertised, listen }: GossipOptions) =>
  decodeBegin({
    type: "swim.begin",
    id,
    meta,
    settings,
    address: advertised?.(listen.port) ?? addressText(listen.host, listen.port),
    chance: 0
  }).pipe(Effect.mapError(({ message }) => new GossipError({ path: "gossip", reason: message })))

/** Whole milliseconds that never go back, and go on while the process is stopped. */
const nowMs = (): number => Math.floor(performance.now())

const chance = (): number => randomInt(2 ** 32) / 2 ** 32

export const addressText = (host: string, port: number): string =>
  isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`

const bind = ({ host, port }: GossipOptions["listen"]) =>
  Effect.callback<Socket, GossipError>((resume) => {
    const socket = createSocket({ type: isIPv6(host) ? "udp6" : "udp4", recvBufferSize: 4 * 1024 * 1024 })
    const failed = (error: Error) =>
      resume(Effect.fail(new GossipError({ path: `gossip.listen ${host}:${port}`, reason: error.message })))
    socket.once("error", failed)
    socket.bind(port, host, () => {
      socket.removeListener("error", failed)
      resume(Effect.succeed(socket))
    })
  })
