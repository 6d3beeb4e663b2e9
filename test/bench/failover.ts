/**
 * The leader of three nodes is killed (kill -9) under load, again and again: how long no command is answered, in election
 * timeouts, from the kill to the first answer after it; and that at the end every acknowledged command is in every journal, once.
 *
 *   node test/bench/failover.ts --kills 30 --seed 7      so many kills, and a timeline of each that took longer than a timeout
 */
import { fork } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { makeRandom } from "../../simulations/world/random.ts"
import { end, said } from "./children.ts"
import { Nodes, token } from "./cluster-nodes.ts"
import { monotonicMs } from "./failover-clients.ts"
import type { ClientsOptions } from "./failover-clients.ts"
import { momentsOf, reasonOf, timelineOf, wasHeldUp } from "./failover-timeline.ts"
import { figure, hashOf, inFolder } from "./measure.ts"
import type { Figure, Options } from "./measure.ts"

const sizes = { smoke: { kills: 3 }, full: { kills: 100 } } as const
const timers = { heartbeatMs: 100, electionMs: 1000 }
const clients = 16
const answerTimeoutMs = 12_000

interface Acknowledged {
  readonly key: string
  readonly atMs: number
}

const acknowledgedIn = (file: string): ReadonlyArray<Acknowledged> =>
  readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => ({
      key: line.slice(0, line.indexOf(" ")),
      atMs: Number(line.slice(line.indexOf(" ") + 1))
    }))

interface Kill {
  readonly atMs: number
  /** The system has ended the process: on a machine that is taken, some time after it was told to. */
  readonly goneMs: number
}

interface Gap {
  readonly killedMs: number
  readonly goneMs: number
  /** The pause begins with the kill, or with the last answer to what was decided before. */
  readonly fromMs: number
  readonly toMs: number
}

const lengthOf = ({ fromMs, toMs }: Gap) => toMs - fromMs

/** From each kill to the first answer after it. What was decided before may still be answered: the longest pause in what follows. */
function gapsOf(
  kills: ReadonlyArray<Kill>,
  all: ReadonlyArray<Acknowledged>,
  windowMs: number
): ReadonlyArray<Gap> {
  const times = all.map(({ atMs }) => atMs).sort((a, b) => a - b)
  return kills.map(({ atMs: killedMs, goneMs }) => {
    const from = times.findIndex((atMs) => atMs > killedMs)
    if (from < 0) throw new Error("nothing was acknowledged after a kill")
    let [longest, last]: [Gap, number] = [{ killedMs, goneMs, fromMs: killedMs, toMs: killedMs }, killedMs]
    for (let at = from; at < times.length && last < killedMs + windowMs; at++) {
      const next = times[at] as number
      if (next - last > lengthOf(longest)) longest = { killedMs, goneMs, fromMs: last, toMs: next }
      last = next
    }
    return longest
  })
}

/** Where the gap ends at the latest when somebody takes over at all: what comes later is not this kill's. */
const windowMs = 2500

async function killing(nodes: Nodes, kills: number, seed: number): Promise<ReadonlyArray<Kill>> {
  const random = makeRandom(seed)
  const killed: Array<Kill> = []
  for (let kill = 0; kill < kills; kill++) {
    const leader = await nodes.leader()
    await sleep(random.int(0, 400))
    const atMs = monotonicMs()
    await nodes.kill(leader)
    killed.push({ atMs, goneMs: monotonicMs() })
    await sleep(windowMs)
    await nodes.up(leader)
    await caughtUp(nodes)
  }
  return killed
}

/** Until the one that came back has nearly what the others have: otherwise two of three would be behind at the next kill. */
async function caughtUp(nodes: Nodes): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    const all = await Promise.all(nodes.names.map((name) => nodes.status(name)))
    const commits = all.map(({ commit }) => commit)
    if (all.every(({ leader }) => leader !== null) && Math.max(...commits) - Math.min(...commits) < 200)
      return
    await sleep(50)
  }
  throw new Error("the node that came back does not catch up")
}

/** What every journal says of the commands: how often each is in it. */
async function check(nodes: Nodes, acknowledged: ReadonlyArray<Acknowledged>): Promise<string> {
  for (const name of nodes.names) await nodes.stop(name)
  const heads = new Set<string>()
  for (const name of nodes.names) {
    const { head, ids } = await nodes.journal(name)
    heads.add(head)
    const times = new Map<string, number>()
    for (const id of ids) times.set(id, (times.get(id) ?? 0) + 1)
    const lost = acknowledged.filter(({ key }) => !times.has(`${key}#0`))
    const twice = [...times].filter(([, count]) => count > 1)
    // Each client's commands alternate, so that one that took effect twice under two ids would have been refused.
    if (lost.length > 0 || twice.length > 0)
      throw new Error(
        `${name}: ${lost.length} acknowledged commands are lost, ${twice.length} are there twice: ` +
          [...lost.slice(0, 3).map(({ key }) => key), ...twice.slice(0, 3).map(([id]) => id)].join(", ")
      )
  }
  if (heads.size !== 1) throw new Error(`the journals differ: ${[...heads].join("; ")}`)
  return [...heads][0] as string
}

const share = (sorted: ReadonlyArray<number>, part: number) =>
  sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * part) - 1)] as number

interface Outcome {
  readonly gaps: ReadonlyArray<Gap>
  /** Of those that took longer than an election timeout: why, and who did what when. */
  readonly slow: ReadonlyArray<string>
  /** Kills during which a node waited for its turn on the processor, or for its disk, for long. */
  readonly held: number
  readonly commands: number
  readonly head: string
}

const slowMs = timers.electionMs

const explained = (moments: ReturnType<typeof momentsOf>, gap: Gap): ReadonlyArray<string> => {
  const { killedMs, goneMs, fromMs, toMs } = gap
  const from = `${(fromMs - killedMs).toFixed(0)} ms after a kill, whose process was gone after ${(goneMs - killedMs).toFixed(0)} ms`
  return [
    `${lengthOf(gap).toFixed(0)} ms from ${from}: ${reasonOf(moments, killedMs, toMs)}`,
    ...timelineOf(moments, killedMs, toMs).map((line) => `  ${line}`)
  ]
}

/** Kills as often, and keeps what the members did. */
const measure = (kills: number, seed: number): Promise<Outcome> =>
  inFolder(async (folder) => {
    const nodes = await Nodes.start(folder, { ...timers, isTraced: true })
    const file = join(folder, "acknowledged")
    const options: ClientsOptions = {
      apis: nodes.names.map((name) => nodes.apiOf(name)),
      token,
      ca: nodes.ca,
      clients,
      file,
      answerTimeoutMs
    }
    await nodes.ask(nodes.names[0], { order: "register", hosts: clients })
    const client = fork(fileURLToPath(new URL("./failover-clients.ts", import.meta.url)), [
      JSON.stringify(options)
    ])
    try {
      await sleep(1000)
      const killed = await killing(nodes, kills, seed)
      const done = said(client)
      client.send("over")
      await done
      const acknowledged = acknowledgedIn(file)
      await nodes.heads()
      const gaps = gapsOf(killed, acknowledged, windowMs)
      const moments = momentsOf(nodes.names.map((name) => join(folder, name)))
      const slow = gaps.filter((gap) => lengthOf(gap) > slowMs).flatMap((gap) => explained(moments, gap))
      const held = gaps.filter(({ killedMs, toMs }) => wasHeldUp(moments, killedMs, toMs)).length
      return { gaps, slow, held, commands: acknowledged.length, head: await check(nodes, acknowledged) }
    } finally {
      await end(client)
      await nodes.end()
    }
  })

export async function* failover({ size, seed }: Options): AsyncGenerator<Figure> {
  const { kills } = sizes[size]
  yield figureOf(kills, await measure(kills, seed))
}

function figureOf(kills: number, { gaps, slow, held, commands, head }: Outcome): Figure {
  const { electionMs, heartbeatMs } = timers
  const sorted = gaps.map((gap) => lengthOf(gap) / electionMs).sort((a, b) => a - b)
  const at = (part: number) => share(sorted, part).toFixed(2)
  for (const line of slow) console.error(line)
  return figure(
    `kill -9 of the leader, ${kills} times, ${clients} clients`,
    "election timeouts",
    sorted.map((value) => ({ value, result: hashOf([String(kills)]) })),
    {
      note:
        `without an answer: p50 ${at(0.5)}, p90 ${at(0.9)}, p99 ${at(0.99)}; heartbeat ${heartbeatMs} ms, election ${electionMs} ms; ` +
        `in ${held} of them a node was held up by the machine; ${commands} commands acknowledged, 0 lost, 0 twice, in 3 equal journals that end at ${head.slice(0, head.indexOf(" ") + 9)}`
    }
  )
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { kills: { type: "string" }, seed: { type: "string" } } })
  const kills = Number(values.kills ?? sizes.smoke.kills)
  const { value, note } = figureOf(kills, await measure(kills, Number(values.seed ?? 1)))
  console.log(`${kills} kills: ${JSON.stringify(value)}; ${note}`)
}
