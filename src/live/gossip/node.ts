/**
 * A node's place among those that notice one another: its member, opened when it has the cluster's keys; the keys, kept in a file and
 * taken from whoever has later ones; where others are, as the link's other end and the configuration tell; and a leave at the end.
 */
import { join } from "node:path"
import { Clock, Effect, Schema, Scope, Semaphore, Stream } from "effect"
import { text } from "../../events/fields.ts"
import { descriptionText, keyringOf, noDescription } from "../../events/peer.ts"
import type { PeerDescription } from "../../events/peer.ts"
import { HandlerFailed } from "../../kernel/ports/link.ts"
import type { Link } from "../../kernel/ports/link.ts"
import { parseAddress } from "../link/address.ts"
import { discover, resolveName } from "./discovery.ts"
import type { DiscoveryOptions } from "./discovery.ts"
import {
  foundedRing,
  isLaterVersion,
  keysOf,
  readRing,
  Ring,
  Version,
  versionOf,
  writeRing
} from "./keyring.ts"
import { GossipMember } from "./member.ts"
import type { Changed, GossipOptions } from "./member.ts"

export interface GossipNodeOptions extends Pick<GossipOptions, "actor" | "wakesAtMs" | "settings"> {
  readonly node: string
  /** Of the keys and of the incarnation. */
  readonly folder: string
  /** Which cluster's keys they are; the same text at all its nodes. */
  readonly cluster: string
  readonly listen: GossipOptions["listen"]
  /** Another port is taken when that one is not free. */
  readonly takesAnyPort: boolean
  /** Where others reach it, from the port that it has. */
  readonly advertised: (port: number) => string
  readonly discovery: Pick<DiscoveryOptions, "seeds" | "refreshMs"> & {
    /** The address of the interface that multicast DNS is spoken on; null for none. */
    readonly mdns: string | null
  }
  /** Nodes that may be asked for keys: those with a kernel. */
  readonly kernels: () => ReadonlyArray<string>
  /** Makes the first key, where it has none. */
  readonly founds: boolean
  /** Opens no socket before another node asks for the keys. */
  readonly isLate: boolean
}

const keyringKind = "gossip.keyring"
const Asked = Schema.Struct({ version: Schema.NullOr(Version) })
const Answer = Schema.Struct({
  /** Null where it is not later than what the asker has. */
  ring: Schema.NullOr(Ring),
  seeds: Schema.Array(text(128)).check(Schema.isMaxLength(64))
})
const decodeAsked = Schema.decodeUnknownEffect(Asked, { onExcessProperty: "error" })
const decodeAnswer = Schema.decodeUnknownEffect(Answer)

/** Told to who asks; enough to meet all the others by. */
const handedSeeds_max = 16
const seeds_max = 64
const answerTimeoutMs = 5000
/** How often it is looked whether there is a reason to ask. */
const lookEveryMs = 500
const askAgainMs = 1000
const askAnywayMs = 60_000
const mdnsPort = 5353
/** Beyond what the protocol itself waits for. */
const leaveGraceMs = 500

type Open = Effect.Success<ReturnType<typeof GossipMember.open>>

export class GossipNode {
  readonly options: GossipNodeOptions
  readonly #link: Link["Service"]
  readonly #scope: Scope.Scope
  readonly #turn = Semaphore.makeUnsafe(1)
  readonly #writing = Semaphore.makeUnsafe(1)
  readonly #listeners: Array<(changed: Changed) => void> = []
  #member: Open | null = null
  #ring: Ring | null = null
  #version: string | null = null
  #description: PeerDescription = noDescription
  /** By the link's other end, and by the configuration and multicast. */
  #handed: ReadonlyArray<string> = []
  #found: ReadonlyArray<string> = []
  #joined = ""
  /** Somebody says to have later keys. */
  #isBehind = false
  #asks = 0

  constructor(options: GossipNodeOptions, link: Link["Service"], scope: Scope.Scope) {
    this.options = options
    this.#link = link
    this.#scope = scope
  }

  /** Null before it has keys, or where nobody has asked for them yet. */
  get member(): GossipMember | null {
    return this.#member
  }

  get ring(): Ring | null {
    return this.#ring
  }

  /** Of the ring; null where there is none. */
  get version(): string | null {
    return this.#version
  }

  get #keysPath(): string {
    return join(this.options.folder, "keys.json")
  }

  /** Told of every change that the member notices, from now on. */
  onChanged(listener: (changed: Changed) => void): void {
    this.#listeners.push(listener)
  }

  /** Tell this of the node from now on. */
  describe(description: PeerDescription): void {
    this.#description = description
    this.#member?.describe(this.#meta())
  }

  #meta(): string {
    return descriptionText(this.#description, this.#version)
  }

  /** Whether it was a later ring than the one that is here; it is on the disk before anything is sealed with it. */
  readonly take = (ring: Ring) => this.#writing.withPermit(this.#taken(ring))

  readonly #taken = Effect.fnUntraced({ self: this }, function* (this: GossipNode, ring: Ring) {
    const { cluster } = this.options
    const version = versionOf(cluster, ring)
    if (!isLaterVersion(version, this.#version)) return false
    yield* writeRing(this.#keysPath, ring)
    this.#hold(ring, version)
    yield* Effect.logInfo(`the keys that gossip is sealed with are of version ${version}, ${ring.stage}`)
    return true
  })

  #hold(ring: Ring, version: string): void {
    this.#ring = ring
    this.#version = version
    this.#isBehind = false
    this.#member?.replaceKeys(keysOf(this.options.cluster, ring))
    this.#member?.describe(this.#meta())
  }

  /** Read or make the keys, and open the member where there are some; then keep up with the others. Never ends. */
  readonly run = Effect.fnUntraced({ self: this }, function* (this: GossipNode) {
    for (let askedMs = 0, counted = 0; ;) {
      yield* Effect.sleep(lookEveryMs)
      const nowMs = yield* Clock.currentTimeMillis
      const unknown = this.#member?.counts["unknown-key"] ?? 0
      const waitedMs = nowMs - askedMs
      const isAlone = this.#member?.role === "alone"
      const isDue =
        waitedMs >= askAnywayMs ||
        this.#isBehind ||
        (waitedMs >= askAgainMs && (this.#member === null || unknown > counted)) ||
        (waitedMs >= this.options.discovery.refreshMs && isAlone)
      if (!isDue) continue
      askedMs = nowMs
      counted = unknown
      yield* this.#ask()
    }
  })

  /** What lies on the disk; where nothing does a founder makes it, unless it waits to be asked. */
  readonly begin = Effect.fnUntraced({ self: this }, function* (this: GossipNode) {
    const { cluster, founds, isLate } = this.options
    const ring = yield* readRing(this.#keysPath)
    if (ring !== null) this.#hold(ring, versionOf(cluster, ring))
    else if (founds && !isLate) yield* this.take(foundedRing())
    if (this.#ring !== null) yield* this.#open()
  })

  /** Once; who asks meanwhile waits. */
  readonly #open = () =>
    this.#turn.withPermit(
      Effect.suspend(() =>
        this.#member === null && this.#ring !== null ? this.#opened(this.#ring) : Effect.void
      )
    )

  readonly #opened = Effect.fnUntraced({ self: this }, function* (this: GossipNode, ring: Ring) {
    const { actor, wakesAtMs, settings, node, listen, takesAnyPort, cluster, folder } = this.options
    const options: GossipOptions = {
      actor,
      wakesAtMs,
      settings,
      id: node,
      listen,
      advertised: this.options.advertised,
      meta: this.#meta(),
      keys: keysOf(cluster, ring),
      incarnationFile: join(folder, "incarnation"),
      changed: (one) => this.#changed(one),
      failed: (error) => {
        Effect.runFork(Effect.logError("nobody is noticed any more: the incarnation can't be kept", error))
      }
    }
    const anyPort = { ...options, listen: { ...listen, port: 0 } }
    const member = yield* GossipMember.open(options).pipe(
      Effect.catchTag("GossipError", (error) =>
        takesAnyPort && listen.port !== 0 ? GossipMember.open(anyPort) : Effect.fail(error)
      ),
      Scope.provide(this.#scope)
    )
    this.#member = member
    yield* Scope.addFinalizer(this.#scope, this.#leave(member))
    yield* Effect.logInfo(`gossip is heard at ${member.address}`)
    this.#joinAll()
    const { seeds, refreshMs, mdns } = this.options.discovery
    if (seeds.length === 0 && mdns === null) return
    const announced = parseAddress(member.address)
    const spoken = { cluster, node, announced, interface: mdns ?? "", port: mdnsPort }
    const found = (all: ReadonlyArray<string>) => {
      this.#found = all
      this.#joinAll()
    }
    yield* discover({
      seeds,
      refreshMs,
      mdns: mdns === null ? null : spoken,
      resolve: resolveName,
      found
    }).pipe(
      Effect.catch((error) => Effect.logError("gossip.seeds are not looked for", error)),
      Effect.forkIn(this.#scope)
    )
  })

  /** Others hear that it goes, and take it for no failure. */
  #leave(member: GossipMember): Effect.Effect<void> {
    const { leaveMs } = this.options.settings
    return Effect.promise(() => member.leave()).pipe(
      Effect.timeoutOrElse({ duration: leaveMs + leaveGraceMs, orElse: () => Effect.void })
    )
  }

  #changed(changed: Changed): void {
    if (isLaterVersion(keyringOf(changed.peer.meta), this.#version)) this.#isBehind = true
    for (const listener of this.#listeners) listener(changed)
  }

  #joinAll(): void {
    const all = [...new Set([...this.#handed, ...this.#found])].slice(0, seeds_max)
    if (this.#member === null || all.join() === this.#joined) return
    this.#joined = all.join()
    this.#member.join(all)
  }

  /** Those that have a kernel, another one first each time, until one answers. */
  readonly #ask = Effect.fnUntraced({ self: this }, function* (this: GossipNode) {
    const all = this.options.kernels().filter((name) => name !== this.options.node)
    const first = all.length === 0 ? 0 : this.#asks++ % all.length
    for (const node of [...all.slice(first), ...all.slice(0, first)]) {
      const answered = yield* this.#askOne(node).pipe(
        Effect.as(true),
        Effect.catch((error) => Effect.as(Effect.logDebug(`no keys of ${node}: ${error.message}`), false))
      )
      if (answered) return
    }
  })

  readonly #askOne = Effect.fnUntraced({ self: this }, function* (this: GossipNode, node: string) {
    const calls = this.#link.call(node, keyringKind, { version: this.#version })
    const replies = yield* Stream.runCollect(Stream.take(calls, 1)).pipe(
      Effect.timeoutOrElse({
        duration: answerTimeoutMs,
        orElse: () => Effect.fail(new HandlerFailed({ reason: "no answer in time" }))
      })
    )
    // What the decoder says could quote a secret.
    const { ring, seeds } = yield* decodeAnswer(replies[0]).pipe(
      Effect.mapError(() => new HandlerFailed({ reason: "what came is no keyring" }))
    )
    this.#handed = seeds
    if (ring !== null) yield* this.take(ring)
    yield* this.#open()
    this.#joinAll()
  })

  /** At a node with a kernel: give the keys to who has a certificate of the cluster, and say where others are. */
  readonly serve = Effect.fnUntraced({ self: this }, function* (this: GossipNode) {
    yield* this.#link.serve(keyringKind, (_peer, payload) =>
      Stream.fromEffect(
        this.#answer(payload).pipe(
          Effect.mapError((error) => new HandlerFailed({ reason: error.message.slice(0, 2000) }))
        )
      )
    )
  })

  readonly #answer = Effect.fnUntraced({ self: this }, function* (this: GossipNode, payload: unknown) {
    const { version } = yield* decodeAsked(payload)
    if (this.#ring === null && this.options.founds)
      yield* this.#turn.withPermit(
        Effect.suspend(() => (this.#ring === null ? this.take(foundedRing()) : Effect.succeed(false)))
      )
    if (this.#ring === null) return yield* new HandlerFailed({ reason: "this node has no keys itself yet" })
    yield* this.#open()
    const isLater = isLaterVersion(this.#version, version)
    return { ring: isLater ? this.#ring : null, seeds: this.#seeds() }
  })

  /** This member first. */
  #seeds(): ReadonlyArray<string> {
    if (this.#member === null) return []
    const others = this.#member
      .peers()
      .filter(({ id, status, address }) => id !== this.options.node && status === "alive" && address !== "")
      .slice(0, handedSeeds_max - 1)
      .map(({ address }) => address)
    return [this.#member.address, ...others]
  }
}
