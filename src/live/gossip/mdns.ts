/**
 * Nodes of the same cluster on the same network find one another without configuration: multicast DNS (RFC 6762) with
 * service discovery (RFC 6763), service `_novacron._udp.local`. It says only where somebody may be; who has no key gets no further.
 */
import { createSocket } from "node:dgram"
import type { Socket } from "node:dgram"
import { isIPv4 } from "node:net"
import { Effect } from "effect"
import {
  decodeMessage,
  encodeMessage,
  encodeName,
  readName,
  readSrv,
  readTxt,
  recordTypes,
  srvData,
  txtData
} from "./dns-message.ts"
import type { DnsMessage, DnsRecord } from "./dns-message.ts"
import { GossipError } from "./member.ts"

export interface MdnsOptions {
  readonly cluster: string
  readonly node: string
  /** Where this node's member is: IPv4 and port. Null only looks. */
  readonly announced: { readonly host: string; readonly port: number } | null
  /** The address of the interface that is spoken on. */
  readonly interface: string
  /** 5353 but for tests. */
  readonly port: number
  /** All that were heard of in the last minutes, `address:port`, in order. */
  readonly found: (addresses: ReadonlyArray<string>) => void
}

const service = "_novacron._udp.local"
const group = "224.0.0.251"
const ttlSeconds = 120
/** RFC 6762, 5.2: soon, and then more and more seldom. */
const firstQueryMs = 1000
const queryMsMax = 60_000
const found_max = 64
const cluster = (name: string) => `cluster=${name}`

export class Mdns {
  readonly #options: MdnsOptions
  readonly #socket: Socket
  readonly #found = new Map<string, number>()
  #timer: NodeJS.Timeout | null = null

  private constructor(options: MdnsOptions, socket: Socket) {
    this.#options = options
    this.#socket = socket
    socket.on("message", (bytes) => this.#receive(bytes))
    // A network that is not there now may be there at the next query.
    socket.on("error", () => {})
    this.#query(firstQueryMs)
  }

  /** Speaks and listens until the scope closes. */
  static open(options: MdnsOptions) {
    return Effect.acquireRelease(
      Effect.map(bind(options), (socket) => new Mdns(options, socket)),
      (mdns) => Effect.sync(() => mdns.#close())
    )
  }

  #close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#socket.close()
  }

  #send(message: DnsMessage): void {
    this.#socket.send(encodeMessage(message), this.#options.port, group, () => {})
  }

  #query(waitMs: number): void {
    this.#send({ isAnswer: false, questions: [{ name: service, type: recordTypes.ptr }], records: [] })
    this.#timer = setTimeout(() => this.#query(Math.min(queryMsMax, waitMs * 2)), waitMs)
  }

  #receive(bytes: Buffer): void {
    const message = decodeMessage(bytes)
    if (message === null) return
    const isAsked = message.questions.some(({ name, type }) => name === service && type === recordTypes.ptr)
    if (!message.isAnswer && isAsked) this.#announce()
    if (message.isAnswer) this.#read(message.records)
  }

  #announce(): void {
    const { announced, node } = this.#options
    if (announced === null) return
    const instance = `${node}.${service}`
    const host = `${node}.local`
    const record = (name: string, type: number, data: Buffer): DnsRecord => ({ name, type, ttlSeconds, data })
    this.#send({
      isAnswer: true,
      questions: [],
      records: [
        record(service, recordTypes.ptr, encodeName(instance)),
        record(instance, recordTypes.srv, srvData(announced.port, host)),
        record(instance, recordTypes.txt, txtData([cluster(this.#options.cluster)])),
        record(host, recordTypes.a, Buffer.from(announced.host.split(".").map(Number)))
      ]
    })
  }

  #read(records: ReadonlyArray<DnsRecord>): void {
    const of = (name: string, type: number) => records.find((one) => one.name === name && one.type === type)
    for (const pointer of records) {
      if (pointer.name !== service || pointer.type !== recordTypes.ptr) continue
      const instance = readName(pointer.data, 0)?.name ?? ""
      const srv = readSrv(of(instance, recordTypes.srv)?.data ?? Buffer.alloc(0))
      const texts = readTxt(of(instance, recordTypes.txt)?.data ?? Buffer.alloc(0))
      const address = of(srv?.target ?? "", recordTypes.a)?.data
      if (srv === null || address?.length !== 4 || !texts.includes(cluster(this.#options.cluster))) continue
      if (instance === `${this.#options.node}.${service}` || srv.port === 0) continue
      this.#note(`${[...address].join(".")}:${srv.port}`, pointer.ttlSeconds)
    }
  }

  #note(address: string, forSeconds: number): void {
    const nowMs = Date.now()
    for (const [one, untilMs] of this.#found) if (untilMs <= nowMs) this.#found.delete(one)
    const before = [...this.#found.keys()].sort().join()
    if (forSeconds === 0) this.#found.delete(address)
    else if (this.#found.has(address) || this.#found.size < found_max)
      this.#found.set(address, nowMs + Math.min(forSeconds, ttlSeconds) * 1000)
    const all = [...this.#found.keys()].sort()
    if (all.join() !== before) this.#options.found(all)
  }
}

const bind = ({ interface: own, port, announced }: MdnsOptions) =>
  Effect.callback<Socket, GossipError>((resume) => {
    const path = `gossip.mdns ${own}:${port}`
    if (!isIPv4(own) || (announced !== null && !isIPv4(announced.host)))
      return resume(Effect.fail(new GossipError({ path, reason: "an IPv4 address is expected" })))
    const socket = createSocket({ type: "udp4", reuseAddr: true })
    const failed = (error: Error) => {
      socket.close()
      resume(Effect.fail(new GossipError({ path, reason: error.message })))
    }
    socket.once("error", failed)
    // A socket that is bound to the group hears nothing that is sent to another address of this machine.
    socket.bind(port, group, () => {
      socket.removeListener("error", failed)
      try {
        socket.addMembership(group, own)
        socket.setMulticastInterface(own)
        socket.setMulticastTTL(255)
        socket.setMulticastLoopback(true)
      } catch (error) {
        return failed(error as Error)
      }
      resume(Effect.succeed(socket))
    })
  })
