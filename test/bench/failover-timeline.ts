/**
 * What each node's member did around a kill, by the clock that all processes share: when it polled, campaigned, was refused, led,
 * and committed its first entry; so that a kill that was followed late says why.
 */
import { appendFileSync, existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import type { RaftContext } from "../../src/actors/raft/step.ts"
import type { Protocol } from "../../src/kernel/group-member.ts"
import { monotonicMs } from "./failover-clients.ts"

/** A line for each change of what an election is about, and for what held the process up; a few lines an election. */
interface Moment {
  readonly atMs: number
  readonly node: string
  /** What took so long that it has to be told; null for a change of the member. */
  readonly late: string | null
  readonly role: string
  readonly term: number
  readonly leader: string | null
  readonly votes: string
  readonly log: string
  /** A leader has committed an entry of its own term. */
  readonly commits: boolean
}

const fileOf = (folder: string) => join(folder, "timeline")

/** Longer than this the process waited for its turn, or for its disk. */
const lateMs = 150
const lookEveryMs = 20

/** The protocol, which also writes down how its member fares, and what holds its process up. */
export function traced(protocol: Protocol, node: string, folder: string): Protocol {
  const write = (moment: Omit<Moment, "atMs" | "node">) =>
    appendFileSync(fileOf(folder), `${JSON.stringify({ atMs: monotonicMs(), node, ...moment })}\n`)
  const late = (what: string, ms: number) =>
    write({
      late: `${what} ${ms.toFixed(0)} ms`,
      role: "",
      term: 0,
      leader: null,
      votes: "",
      log: "",
      commits: false
    })
  let lookedMs = monotonicMs()
  setInterval(() => {
    const nowMs = monotonicMs()
    if (nowMs - lookedMs > lookEveryMs + lateMs) late("its event loop stood still for", nowMs - lookedMs)
    lookedMs = nowMs
  }, lookEveryMs).unref()
  let before = ""
  /** Of the oldest entry that is looked for on the disk. */
  let waiting: { readonly index: number; readonly sinceMs: number } | null = null
  return {
    ...protocol,
    wakesAtMs: (role, context) => {
      const { term, leader, votes, log, commit, began, stored } = context as RaftContext
      if (waiting !== null && stored >= waiting.index) {
        const waitedMs = monotonicMs() - waiting.sinceMs
        if (waitedMs > lateMs) late("its disk took", waitedMs)
        waiting = null
      }
      if (waiting === null && log.last > stored) waiting = { index: log.last, sinceMs: monotonicMs() }
      const commits = role === "leader" && commit >= began
      const said = Object.entries(votes)
        .map(([id, isGranted]) => `${id}:${isGranted ? "yes" : "no"}`)
        .join(",")
      const now = JSON.stringify([role, term, leader, said, commits])
      if (now !== before) {
        before = now
        write({ late: null, role, term, leader, votes: said, log: `${log.last}/${log.lastTerm}`, commits })
      }
      return protocol.wakesAtMs(role, context)
    }
  }
}

/** All of these nodes, in order. */
export const momentsOf = (folders: ReadonlyArray<string>): ReadonlyArray<Moment> =>
  folders
    .filter((folder) => existsSync(fileOf(folder)))
    .flatMap((folder) => readFileSync(fileOf(folder), "utf8").split("\n"))
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Moment)
    .sort((a, b) => a.atMs - b.atMs)

/** Whether a process stood still, or waited for its disk, longer than it has to. */
export const wasHeldUp = (moments: ReadonlyArray<Moment>, fromMs: number, toMs: number): boolean =>
  moments.some(({ atMs, late }) => late !== null && atMs >= fromMs && atMs <= toMs)

/** From a kill on, in milliseconds after it: who did what, and when the first command was answered. */
export function timelineOf(
  moments: ReadonlyArray<Moment>,
  killedMs: number,
  answeredMs: number
): ReadonlyArray<string> {
  const lines = moments
    .filter(({ atMs }) => atMs >= killedMs - 20 && atMs <= answeredMs + 20)
    .map(({ atMs, node, late, role, term, leader, votes, log, commits }) => {
      if (late !== null) return `${(atMs - killedMs).toFixed(0)} ms: ${node}: ${late}`
      const follows = role === "follower" ? ` of ${leader ?? "nobody"}` : ""
      return `${(atMs - killedMs).toFixed(0)} ms: ${node} ${role}${follows} in term ${term}, log ${log}${votes === "" ? "" : `, votes ${votes}`}${commits ? ", has committed" : ""}`
    })
  return [...lines, `${(answeredMs - killedMs).toFixed(0)} ms: the first answer`]
}

/** The phase that took longest: until somebody asks for votes, until somebody leads, until it has committed, until a client is answered. */
export function reasonOf(moments: ReadonlyArray<Moment>, killedMs: number, answeredMs: number): string {
  const after = moments.filter(({ atMs }) => atMs >= killedMs && atMs <= answeredMs)
  const first = (is: (moment: Moment) => boolean) => after.find(is)?.atMs ?? answeredMs
  const asked = first(({ role }) => role === "poller" || role === "candidate")
  const led = first(({ role }) => role === "leader")
  const committed = first(({ commits }) => commits)
  const polls = after.filter(({ role, votes }) => role === "poller" && !votes.includes(",")).length
  const campaigns = after.filter(({ role, votes }) => role === "candidate" && !votes.includes(",")).length
  const refusals = after.filter(({ votes }) => votes.includes(":no")).length
  const part = (name: string, ms: number) => `${name} ${ms.toFixed(0)} ms`
  return [
    part("until somebody asked for votes", asked - killedMs),
    part("until somebody led", led - asked),
    part("until its first commit", committed - led),
    part("until an answer", answeredMs - committed),
    `${polls} polls, ${campaigns} campaigns, ${refusals} refusals`
  ].join(", ")
}
