/**
 * At the node whose kernel performs: which lost hosts are fenced, and when; and which machines of fenced hosts are told, a few at a
 * time. All of it by its own steady clock and from what it sees itself; what follows are commands to the hosts' and machines' actors,
 * ordered as any others are, so that the decision is a fact with its evidence.
 *
 * A lost host is given no lease. Who was given the last one, and when, this node need not know: whoever gave it did so before the
 * host was lost, or did not know yet that it leads no more, which it knows at the latest `handOverMs` after this node leads.
 */
import { staysWithHost } from "../events/vm.ts"
import type { VmSpec } from "../events/vm.ts"
import type { Said } from "./membership.ts"
import { describe } from "./statechart.ts"
import type { ActorState } from "./turn.ts"

export interface FencingOptions {
  readonly node: string
  /** By a clock that is steady: never set, and at most `driftMax` fast or slow. */
  readonly nowMs: () => number
  /** So long after this node leads, one that led before may still give leases. 0 where there is one kernel. */
  readonly handOverMs: number
  /** What the watcher may take to end the machines, in ms, and everything else that is not a clock's drift. */
  readonly marginMs: number
  /** So many machines are on their way to other hosts at the same time. */
  readonly recovering_max: number
  /** With more than this share of the hosts lost, in percent, none is fenced: then it may be this side that is cut off. */
  readonly lostPercentMax: number
}

/** Between the host's clock and this one's: many times what is allowed of any, and of adjtimex's fastest slew (500 ppm) too. */
export const driftMax = 0.01

/** From the last moment in which a lease may have been given. */
export const fencingWaitMs = (lengthMs: number, marginMs: number): number =>
  Math.ceil(lengthMs * (1 + driftMax)) + marginMs

type Actors = ReadonlyMap<string, ActorState>

/** What is read here of the actors' states. */
interface HostState {
  readonly losses: number
  readonly held: string | null
  readonly facts: { readonly lease?: { readonly lengthMs: number } } | null
  readonly reservations: Readonly<Record<string, { readonly vm: string }>>
}
interface VmState {
  readonly host: string | null
  readonly spec: VmSpec | null
  readonly runs: number
  readonly wanted: boolean
  readonly recovering: number
  readonly waitsFor: string
}

interface Lost {
  readonly loss: number
  /** When this node saw it. */
  readonly sinceMs: number
  /** When too many were lost for the last time: those that are back first must not decide about the others. */
  manyMs: number
}

const stateOf = ({ chart }: ActorState): string =>
  typeof chart.value === "string" ? chart.value : (describe(chart).split(".")[0] ?? "")
/** Those in which a machine runs or is about to. */
const runs: ReadonlyArray<string> = ["starting", "running", "resuming"]
const onItsWay: ReadonlyArray<string> = ["placing", "defining", "starting", "stopped"]

const unleased =
  "no watcher ended its machines when it was last heard of: confirm that it is off, and they start elsewhere"

const seconds = (ms: number): string => `${Math.round(ms / 100) / 10} s`

export class Fencer {
  readonly #options: FencingOptions
  #term: number | null = null
  #ledSinceMs = 0
  readonly #lost = new Map<string, Lost>()
  /** Of every host that there is. */
  readonly #streams = new Map<string, string>()
  /** Machines that were told, until they run elsewhere. */
  readonly #told = new Set<string>()

  constructor(options: FencingOptions) {
    this.#options = options
  }

  /** `term` in which this node performs, 0 of one that decides alone; null while it does not. Gives what there is to say. */
  look(term: number | null, hosts: Iterable<string>, actors: Actors): ReadonlyArray<Said> {
    const nowMs = this.#options.nowMs()
    if (term !== this.#term) {
      this.#term = term
      this.#ledSinceMs = nowMs
      this.#lost.clear()
      this.#told.clear()
    }
    if (term === null) return []
    const away: Array<{ readonly host: string; readonly isLost: boolean; readonly context: HostState }> = []
    let lost = 0
    let all = 0
    // Of very many hosts nearly all are up, several times a second.
    for (const host of hosts) {
      const actor = actors.get(this.#streamOf(host))
      if (actor === undefined || actor.revision < 0) continue
      const state = stateOf(actor)
      const isLost = state === "lost"
      if (isLost) lost++
      else if (this.#lost.size > 0) this.#lost.delete(host)
      if (state !== "fenced") all++
      if (isLost || state === "fenced") away.push({ host, isLost, context: actor.chart.context as HostState })
    }
    return away.flatMap(({ host, isLost, context }) =>
      isLost ? this.#fence(host, context, { lost, all, nowMs }) : this.#tell(host, context, actors)
    )
  }

  /** The same text each time, which is looked up for less than a new one. */
  #streamOf(host: string): string {
    let stream = this.#streams.get(host)
    if (stream === undefined) this.#streams.set(host, (stream = `host/${host}`))
    return stream
  }

  #fence(
    host: string,
    { losses, held, facts }: HostState,
    { lost, all, nowMs }: { readonly lost: number; readonly all: number; readonly nowMs: number }
  ): ReadonlyArray<Said> {
    const { node, handOverMs, marginMs, lostPercentMax } = this.#options
    const stream = `host/${host}`
    const hold = (reason: string): ReadonlyArray<Said> =>
      reason === held
        ? []
        : [
            {
              stream,
              id: `hold/${host}/${losses}/${lost}/${all}`,
              message: { type: "host.holdFencing", loss: losses, reason }
            }
          ]
    if (facts?.lease === undefined) return hold(unleased)
    const known = this.#lost.get(host)
    const seen = known?.loss === losses ? known : { loss: losses, sinceMs: nowMs, manyMs: nowMs }
    this.#lost.set(host, seen)
    const areMany = lost * 100 > all * lostPercentMax
    if (areMany) seen.manyMs = nowMs
    const sinceMs = Math.max(seen.sinceMs, this.#ledSinceMs + handOverMs)
    const { lengthMs } = facts.lease
    const waitMs = fencingWaitMs(lengthMs, marginMs)
    if (nowMs - sinceMs < waitMs) return []
    if (areMany)
      return hold(
        `${lost} of ${all} hosts are lost, more than ${lostPercentMax} %: it may be this side that is cut off`
      )
    if (nowMs - seen.manyMs < waitMs) return []
    const waitedMs = Math.floor(nowMs - sinceMs)
    const evidence = { node, term: this.#term ?? 0, leaseMs: lengthMs, waitedMs }
    const reason = `its lease of ${seconds(lengthMs)} has run out: it was given none for ${seconds(waitedMs)}`
    return [
      {
        stream,
        id: `fence/${host}/${losses}`,
        message: { type: "host.fence", loss: losses, reason, evidence: { by: "lease", ...evidence } }
      }
    ]
  }

  #tell(host: string, { losses, reservations }: HostState, actors: Actors): ReadonlyArray<Said> {
    for (const vm of this.#told) {
      const actor = actors.get(`vm/${vm}`)
      const { recovering = 0 } = (actor?.chart.context ?? {}) as Partial<VmState>
      if (actor === undefined || recovering === 0 || !onItsWay.includes(stateOf(actor))) this.#told.delete(vm)
    }
    const said: Array<Said> = []
    for (const vm of new Set(Object.values(reservations).map((one) => one.vm))) {
      const actor = actors.get(`vm/${vm}`)
      if (actor === undefined) continue
      const own = actor.chart.context as VmState
      const state = stateOf(actor)
      const isMeant = runs.includes(state) || (state === "stopped" && own.wanted)
      if (own.host !== host || own.spec === null || !isMeant || own.waitsFor === `${host}/${losses}`) continue
      const leaves = staysWithHost(own.spec) === null
      if (leaves && this.#told.size >= this.#options.recovering_max) continue
      if (leaves) this.#told.add(vm)
      const reason = `${host} was fenced`
      said.push({
        stream: `vm/${vm}`,
        id: `fence/${host}/${losses}/${vm}/${own.runs}`,
        message: { type: "vm.fence", host, loss: losses, runs: own.runs, reason }
      })
    }
    return said
  }
}
