/** Makes faults happen to a simulated group, and remembers which: the list is all it takes to have them happen again. */
import type { Network } from "../world/network.ts"
import type { Schedule } from "../world/schedule.ts"
import type { Atlas } from "./atlas.ts"
import { countedAs } from "../world/counted.ts"
import type { Counted } from "../world/counted.ts"
import { allCounted } from "./fault.ts"
import type { Fault, TimedFault } from "./fault.ts"
import { leaderAmong } from "./member.ts"
import type { Member } from "./member.ts"

/** Before all else that is due at the same time. */
const first = -1

interface World {
  readonly schedule: Schedule
  readonly members: ReadonlyMap<string, Member>
  readonly network: Network<never>
  readonly atlas: Atlas
  /** A new member, on an empty disk. */
  readonly recruit: (id: string) => Member
}

export class Faults {
  readonly #schedule: Schedule
  readonly #members: ReadonlyMap<string, Member>
  readonly #network: Network<never>
  readonly #atlas: Atlas
  readonly #recruit: (id: string) => Member
  readonly list: Array<TimedFault> = []
  #isOver = false
  /** How many of a kind took effect: whoever is down does not crash. */
  readonly counts: Record<Counted<Fault>, number>
  /** Partitions that ended and came again. */
  flapping = 0
  restarts = 0

  constructor(world: World) {
    this.#schedule = world.schedule
    this.#members = world.members
    this.#network = world.network
    this.#atlas = world.atlas
    this.#recruit = world.recruit
    this.counts = Object.fromEntries(allCounted.map((name) => [name, 0])) as typeof this.counts
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** These, each at its time. */
  script(faults: ReadonlyArray<TimedFault>): void {
    for (const [place, { atMs, fault }] of faults.entries())
      this.#schedule.at(atMs, () => this.inject(fault), first + place * 1e-9)
  }

  /** Happens now, which is a whole microsecond when it is to happen again. */
  inject(fault: Fault): void {
    if (this.#isOver) return
    const { nowMs } = this.#schedule
    if (!this.#happen(fault)) return
    this.counts[countedAs(fault)]++
    this.list.push({ atMs: nowMs, fault })
  }

  #happen(fault: Fault): boolean {
    switch (fault.kind) {
      case "crash":
        return this.#crash(fault)
      case "pause":
        return this.#pause(fault)
      case "partition":
        return this.#partition(fault)
      case "clog":
        for (const path of fault.paths) this.#network.clog(path, this.#schedule.nowMs + fault.forMs)
        return true
      case "hangUp":
        for (const id of fault.ids) this.#members.get(id)?.lost(fault.peer)
        return true
      case "stall":
        this.#members.get(fault.id)?.disk.stall(this.#schedule.nowMs + fault.forMs)
        return true
      case "damage":
        return this.#damage(fault)
      case "error":
        this.#members.get(fault.id)?.disk.fail(fault.operation)
        return true
      case "full":
        this.#members.get(fault.id)?.disk.fill(this.#schedule.nowMs + fault.forMs)
        return true
      case "step":
        this.#members.get(fault.id)?.options.clock.step(fault.byMs)
        return true
      case "jump":
        return this.#jump(fault.id, fault.byMs)
      case "suspend":
        return this.#suspend(fault)
      case "recruit":
        if (this.#members.has(fault.id)) return false
        this.#recruit(fault.id).start()
        return true
      case "transfer":
        return this.#operate((leader) => leader.operate({ type: "raft.transfer", to: fault.to }))
      case "change": {
        const { voters, learners } = fault
        if (!this.#atlas.mayDecide(voters)) return false
        return this.#operate((leader) => leader.operate({ type: "raft.change", voters, learners }))
      }
    }
  }

  #crash({ id, forMs, requests }: Extract<Fault, { readonly kind: "crash" }>): boolean {
    const member = this.#members.get(id)
    if (member === undefined || !member.isUp) return false
    const restart = () =>
      this.#schedule.after(forMs, () => {
        if (this.#isOver || member.isUp) return
        this.restarts++
        member.start()
      })
    if (requests === null) {
      member.crash()
      restart()
    } else member.crashWithin(requests, restart)
    return true
  }

  /** A lease is only as good as a clock that counts all of the time, and no more: not where there are leases (ADR 12). */
  #jump(id: string, byMs: number): boolean {
    const member = this.#members.get(id)
    if (member === undefined || !this.#mayJump(member)) return false
    member.options.clock.jump(byMs)
    member.clockJumped()
    return true
  }

  #mayJump = ({ options }: Member): boolean => options.settings.leaseDriftPercent === 0

  #suspend(fault: Extract<Fault, { readonly kind: "suspend" }>): boolean {
    const member = this.#members.get(fault.id)
    if (member === undefined || !this.#mayJump(member) || !this.#pause(fault)) return false
    return this.#jump(fault.id, -fault.forMs)
  }

  #pause({ id, forMs }: { readonly id: string; readonly forMs: number }): boolean {
    const member = this.#members.get(id)
    if (member === undefined || !member.isUp) return false
    member.pausedMs = Math.max(member.pausedMs, this.#schedule.nowMs + forMs)
    return true
  }

  #partition({ paths, forMs, flapMs }: Extract<Fault, { readonly kind: "partition" }>): boolean {
    let mend = this.#network.cut(paths)
    let hasFlapped = false
    const endMs = this.#schedule.nowMs + forMs
    const flap = (isCut: boolean, everyMs: number): void => {
      if (this.#isOver || this.#schedule.nowMs + everyMs >= endMs) return
      this.#schedule.after(everyMs, () => {
        if (this.#isOver) return
        if (isCut) mend()
        else mend = this.#network.cut(paths)
        if (!isCut && !hasFlapped) this.flapping++
        hasFlapped ||= !isCut
        flap(!isCut, everyMs)
      })
    }
    if (flapMs !== null) flap(true, flapMs)
    this.#schedule.at(endMs, () => mend())
    return true
  }

  #damage({ id, how, place }: Extract<Fault, { readonly kind: "damage" }>): boolean {
    const member = this.#members.get(id)
    if (member === undefined || !this.#atlas.mayDamage(id)) return false
    if (!(how === "snapshot" ? member.rotSnapshot(place) : member.disk.damage(how, place))) return false
    this.#atlas.damaged.add(id)
    return true
  }

  /** True when a leader was asked; it may have declined. */
  #operate(ask: (leader: Member) => boolean): boolean {
    const leader = leaderAmong(this.#members.values())
    return leader !== undefined && ask(leader)
  }

  /** The network heals, all but these come back, and these are gone for good. */
  end(dead: ReadonlySet<string>): void {
    this.#isOver = true
    this.#network.heal()
    for (const member of this.#members.values()) {
      member.pausedMs = 0
      member.disk.mend()
      member.crashWithin(null, () => {})
      if (dead.has(member.id)) {
        if (member.isUp) member.crash()
        member.isGone = true
      } else if (!member.isUp) member.start()
    }
  }
}
