/**
 * Clients of a simulated group: each has one command under way, sends it again under the same number until somebody
 * answers, and now and then gives up, as people do: then its command may still happen later.
 */
import type { Call } from "../checkers/linearizability.ts"
import { Network } from "../world/network.ts"
import type { NetworkOptions } from "../world/network.ts"
import type { Random } from "../world/random.ts"
import type { Schedule } from "../world/schedule.ts"
import type { Command, Operation } from "./machine.ts"
import type { ClientAnswer, Member } from "./member.ts"

export interface ClientOptions {
  readonly clients: number
  readonly keys: number
  /** Commands on average before it rests. */
  readonly burst: number
  /** Between an answer and the next command. */
  readonly thinkMeanMs: number
  readonly restMeanMs: number
  /** Then it is sent again, elsewhere. */
  readonly timeoutMs: number
  /** Shares from 0 to 1. */
  readonly reads: number
  readonly swaps: number
  /** Of the clients, those that only read. */
  readonly readers: number
  /** Reads that are not in the log. */
  readonly indexed: number
  readonly abandoned: number
}

interface Talk {
  readonly command: Command
  readonly isIndexed: boolean
  readonly answer: ClientAnswer | null
}

interface Client {
  readonly name: string
  readonly isReader: boolean
  session: string
  sequence: number
  target: string
  /** Of the command under way; tells old answers and timers from those that matter. */
  attempt: number
  call:
    (Omit<Call, "answeredMs" | "result"> & { readonly command: Command; readonly isIndexed: boolean }) | null
}

export class Clients {
  readonly #schedule: Schedule
  readonly #random: Random
  readonly #options: ClientOptions
  readonly #members: ReadonlyMap<string, Member>
  readonly #network: Network<Talk>
  readonly #clients: ReadonlyArray<Client>
  readonly calls: Array<Call> = []
  #isOpen = true
  /** Values are written once in a history, so that a read says which write it saw. */
  #values = 0
  answered = 0
  abandoned = 0
  retried = 0

  constructor(
    world: { readonly schedule: Schedule; readonly random: Random },
    members: ReadonlyMap<string, Member>,
    options: ClientOptions,
    network: NetworkOptions
  ) {
    this.#schedule = world.schedule
    this.#random = world.random.split("clients")
    this.#members = members
    this.#options = options
    this.#network = new Network(
      world.schedule,
      world.random.split("client network"),
      network,
      (from, to, talk) => this.#arrive(from, to, talk)
    )
    this.#clients = Array.from({ length: options.clients }, (_, index) => ({
      name: `client-${index}`,
      isReader: index < options.clients * options.readers,
      session: `c${index}`,
      sequence: 0,
      target: this.#anyone(),
      attempt: 0,
      call: null
    }))
  }

  start(): void {
    for (const client of this.#clients) this.#think(client)
  }

  /** No new commands; those under way are sent until they are answered, and never given up. */
  close(): void {
    this.#isOpen = false
    this.#network.heal()
  }

  get waiting(): number {
    return this.#clients.filter(({ call }) => call !== null).length
  }

  /** What was never answered, too. */
  history(): ReadonlyMap<string, ReadonlyArray<Call>> {
    const open = this.#clients.flatMap(({ call }) => (call === null ? [] : [unanswered(call)]))
    return Map.groupBy([...this.calls, ...open], ({ operation }) => operation.key)
  }

  #anyone(): string {
    const ids = [...this.#members.keys()]
    return ids[this.#random.int(0, ids.length - 1)] as string
  }

  #think(client: Client): void {
    const { burst, thinkMeanMs, restMeanMs } = this.#options
    const meanMs = this.#random.chance(1 / burst) ? restMeanMs : thinkMeanMs
    const pauseMs = -Math.log(1 - this.#random.next()) * meanMs
    this.#schedule.after(pauseMs, () => {
      if (this.#isOpen) this.#begin(client)
    })
  }

  #operation({ isReader }: Client): Operation {
    const { keys, reads, swaps } = this.#options
    const key = `k${this.#random.int(0, keys - 1)}`
    const draw = this.#random.next()
    if (isReader || draw < reads) return { op: "read", key }
    const value = `v${this.#values++}`
    if (draw >= reads + swaps) return { op: "write", key, value }
    const expected =
      this.#values < 2 ? null : `v${this.#random.int(Math.max(0, this.#values - 6), this.#values - 2)}`
    return { op: "swap", key, expected, value }
  }

  #begin(client: Client): void {
    const operation = this.#operation(client)
    client.sequence++
    const command = { session: client.session, sequence: client.sequence, operation }
    const isIndexed = this.#random.chance(this.#options.indexed)
    client.call = { operation, calledMs: this.#schedule.nowMs, command, isIndexed }
    this.#send(client)
  }

  #send(client: Client): void {
    const { call } = client
    if (call === null) return
    const attempt = ++client.attempt
    const { command, isIndexed } = call
    this.#network.send(client.name, client.target, { command, isIndexed, answer: null })
    this.#schedule.after(this.#options.timeoutMs, () => {
      if (client.attempt !== attempt) return
      client.target = this.#anyone()
      if (this.#isOpen && this.#random.chance(this.#options.abandoned)) return this.#abandon(client, call)
      this.retried++
      this.#send(client)
    })
  }

  #abandon(client: Client, call: NonNullable<Client["call"]>): void {
    this.abandoned++
    this.calls.push(unanswered(call))
    client.call = null
    client.attempt++
    // A session's next number would say that it no longer waits for this one.
    client.session = `${client.name}-${this.abandoned}`
    client.sequence = 0
    this.#think(client)
  }

  #arrive(from: string, to: string, talk: Talk): void {
    const { command, isIndexed, answer } = talk
    if (answer === null) {
      this.#members
        .get(to)
        ?.ask(command, isIndexed, (said) =>
          this.#network.send(to, from, { command, isIndexed, answer: said })
        )
      return
    }
    const client = this.#clients.find(({ name }) => name === to)
    if (client === undefined || client.call?.command !== command) return
    if (!answer.ok) return this.#redirect(client, answer.leader)
    const { operation, calledMs } = client.call
    this.calls.push({ operation, calledMs, answeredMs: this.#schedule.nowMs, result: answer.result })
    this.answered++
    client.call = null
    client.attempt++
    this.#think(client)
  }

  #redirect(client: Client, leader: string | null): void {
    client.target = leader ?? this.#anyone()
    const attempt = ++client.attempt
    this.#schedule.after(this.#options.timeoutMs / 10, () => {
      if (client.attempt === attempt) this.#send(client)
    })
  }
}

const unanswered = ({ operation, calledMs }: Pick<Call, "operation" | "calledMs">): Call => ({
  operation,
  calledMs,
  answeredMs: Number.POSITIVE_INFINITY,
  result: undefined
})
