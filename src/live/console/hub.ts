/**
 * Who is at which machine's console: any number may watch, one may type. Each machine's console is connected once,
 * while anyone is there, and what the guest says goes to all of them. All of it is volatile; that a console was
 * opened, and by whom, is a fact that the API has recorded before it comes here.
 */
import { Effect, FiberMap, Latch } from "effect"
import type { Scope } from "effect"
import type { Principal } from "../../events/envelope.ts"
import type { ConsoleLink } from "../../kernel/ports/consoles.ts"
import { follow } from "./follow.ts"
import type { FollowPorts } from "./follow.ts"
import { Inbox } from "./inbox.ts"
import type { ConsoleNotice } from "./protocol.ts"

export interface Opening {
  readonly session: string
  readonly vm: string
  readonly who: Principal
  readonly mode: "read" | "write"
}

export interface Session extends Opening {
  readonly sinceMs: number
  readonly inbox: Inbox
  attached: boolean
}

interface Room {
  readonly vm: string
  readonly sessions: Set<Session>
  readonly connected: Latch.Latch
  writer: Session | null
  link: ConsoleLink | null
  /** The fiber that keeps it connected; null while nobody is there. */
  following: string | null
  /** What a viewer that comes later is told first. */
  last: ConsoleNotice | null
}

/** Sessions of all consoles together. */
export const sessions_max = 64
/** A session that nobody attaches to is dropped after so long. */
const unattachedMs = 30_000

export class ConsoleHub {
  readonly #ports: FollowPorts
  readonly #rooms = new Map<string, Room>()
  readonly #sessions = new Map<string, Session>()
  readonly #scope: Scope.Scope
  readonly #following: FiberMap.FiberMap<string, void>
  #followed = 0

  private constructor(ports: FollowPorts, scope: Scope.Scope, following: FiberMap.FiberMap<string, void>) {
    this.#ports = ports
    this.#scope = scope
    this.#following = following
  }

  static readonly make = Effect.fn("ConsoleHub.make")(function* (ports: FollowPorts) {
    return new ConsoleHub(ports, yield* Effect.scope, yield* FiberMap.make<string, void>())
  })

  get isFull(): boolean {
    return this.#sessions.size >= sessions_max
  }

  /** Who may type at this machine's console now. */
  writerOf(vm: string): Session | null {
    return this.#rooms.get(vm)?.writer ?? null
  }

  /** Let this session in for a while; who had the right to type and does not any more is told. At most once an id. */
  admit(opening: Opening, nowMs: number): void {
    const room = this.#roomOf(opening.vm)
    const session: Session = { ...opening, sinceMs: nowMs, inbox: new Inbox(), attached: false }
    this.#sessions.set(session.session, session)
    room.sessions.add(session)
    if (session.mode === "write") {
      const before = room.writer
      room.writer = session
      if (before !== null) {
        const reason = `${session.who.kind} ${session.who.name} has taken the console over`
        this.#close(before, { type: "closed", cause: "taken", reason })
      }
    }
    const drop = Effect.sync(() => {
      if (!session.attached) this.leave(session.session)
    })
    Effect.runFork(Effect.forkIn(Effect.delay(drop, unattachedMs), this.#scope))
  }

  leave(id: string): void {
    const session = this.#sessions.get(id)
    if (session !== undefined) this.#remove(session)
  }

  /** Take the place that was kept, once, until the scope closes. Null when there is none for this caller. */
  attach(id: string, vm: string, who: Principal): Effect.Effect<Session | null, never, Scope.Scope> {
    return Effect.gen({ self: this }, function* () {
      const session = this.#sessions.get(id)
      if (session === undefined || session.vm !== vm || session.attached) return null
      if (session.who.kind !== who.kind || session.who.name !== who.name) return null
      session.attached = true
      yield* Effect.addFinalizer(() => Effect.sync(() => this.#remove(session)))
      const room = this.#roomOf(vm)
      if (room.last !== null) session.inbox.notice(room.last)
      if (room.following === null) {
        // A name of its own each time: the one before may still be on its way out.
        room.following = `${vm} ${++this.#followed}`
        yield* FiberMap.run(this.#following, room.following, Effect.scoped(this.#follow(room)))
      }
      return session
    })
  }

  /** Type; waits while the guest takes nothing, and while it is on its way to another host. False: it may not. */
  write(session: Session, octets: Uint8Array): Effect.Effect<boolean> {
    return Effect.gen({ self: this }, function* () {
      const room = this.#rooms.get(session.vm)
      if (room?.writer !== session) return false
      yield* room.connected.await
      // What was typed while it broke is lost; that it broke is told by the notices.
      if (room.link !== null) yield* Effect.ignore(room.link.write(octets))
      return true
    })
  }

  #roomOf(vm: string): Room {
    const known = this.#rooms.get(vm)
    if (known !== undefined) return known
    const connected = Latch.makeUnsafe(false)
    const room: Room = {
      vm,
      sessions: new Set(),
      connected,
      writer: null,
      link: null,
      following: null,
      last: null
    }
    this.#rooms.set(vm, room)
    return room
  }

  #follow(room: Room): Effect.Effect<void, never, Scope.Scope> {
    const { simulated } = this.#ports.consoles
    const tell = (notice: ConsoleNotice) => {
      for (const session of room.sessions) if (session.attached) session.inbox.notice(notice)
    }
    const name = room.following
    const listener = {
      connected: (link: ConsoleLink, host: string) => {
        if (room.following !== name) return
        room.link = link
        room.last = { type: "connected", host, simulated }
        tell(room.last)
        room.connected.openUnsafe()
      },
      hold: () => {
        if (room.following === name) room.connected.closeUnsafe()
      },
      output: (octets: Uint8Array) => {
        for (const session of room.sessions) if (session.attached) session.inbox.data(octets)
      }
    }
    return Effect.map(follow(this.#ports, room.vm, listener), (end) => {
      if (room.following !== name) return
      for (const session of [...room.sessions]) this.#close(session, { type: "closed", ...end })
    })
  }

  #close(session: Session, notice: ConsoleNotice): void {
    session.inbox.notice(notice)
    this.#remove(session)
  }

  #remove(session: Session): void {
    if (this.#sessions.get(session.session) === session) this.#sessions.delete(session.session)
    const room = this.#rooms.get(session.vm)
    if (room === undefined || !room.sessions.delete(session)) return
    if (room.writer === session) room.writer = null
    if ([...room.sessions].some(({ attached }) => attached)) return
    room.connected.closeUnsafe()
    room.link = null
    room.last = null
    if (room.following !== null) Effect.runFork(FiberMap.remove(this.#following, room.following))
    room.following = null
    if (room.sessions.size === 0) this.#rooms.delete(session.vm)
  }
}
