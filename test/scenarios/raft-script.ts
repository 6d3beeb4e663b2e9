/**
 * The language of the scenarios in `raft/`. A file begins with its purpose; then come steps, each a line, and under it,
 * indented by two, everything that it made happen. Lines with # are remarks.
 *
 *     settings name=value …                of the actor; snapshotPartBytes too; before there are members
 *     form a b c [learners d]              a new group
 *     add d                                a process with nothing on its disk
 *     disk a of a b c term 6 terms 1 1 4   a member that finds this on its disk: its log has entries of these terms
 *     tick a, wait 500                     the time comes at which a has something to do; time goes by
 *     deliver [first|last] [a>b] [type]    of the messages on their way now; also `drop`, and `repeat`, which delivers a copy
 *     settle                               deliver until nothing is on its way
 *     hold [first|last] [a>b] [type]       take these off, and `release` them later, in front of the others
 *     isolate c, heal c                    what c sends and is sent is lost
 *     propose a x y, propose a bytes 99    all of them at once
 *     read a, transfer a b, change a voters a b [learners c], compact a 5
 *     slow a, quick a, write a [silently]  its disk is done with the oldest piece when told; a is told unless silently
 *     stored a 3/1                         the disk says so
 *     crash a, start a, lose b a           b is told that its connection with a has ended
 *     progress a, machine a, show          what a leader knows of the others; what was applied; all states and messages
 *
 * `quietly` before a step leaves only the states that it led to.
 */
import { noMembers } from "../../src/actors/raft/quorum.ts"
import type { Entry, RaftFact, RaftMessage, RaftSettings } from "../../src/events/raft.ts"
import { Group } from "./raft-group.ts"
import type { Envelope } from "./raft-group.ts"
import { messageText, progressText, stateText } from "./raft-text.ts"

export interface Scenario {
  readonly purpose: string
  /** The file with what happened in the place of what was expected. */
  readonly text: string
}

const defaults: RaftSettings = {
  heartbeatMs: 100,
  electionMs: 1000,
  messageBytesMax: 1024 * 1024,
  inflightBytesMax: 1024 * 1024,
  inflightEntriesMax: 1024,
  uncommittedBytesMax: 1024 * 1024,
  readsMax: 100,
  lagEntriesMax: 10,
  leaseDriftPercent: 0
}

/** Deliveries of one `settle`; a group that needs more never comes to rest. */
const settleMax = 10_000

type Words = ReadonlyArray<string>
type Step = (group: Group, words: Words) => void

function the(words: Words, at: number, what: string): string {
  const word = words[at]
  if (word === undefined) throw new Error(`${what} is missing`)
  return word
}

function whole(text: string, what: string): number {
  if (!/^\d+$/.test(text)) throw new Error(`${what} is ${text}: a whole number is wanted`)
  return Number(text)
}

/** Words in groups, each after one of these names: `voters a b learners c`. */
function grouped(words: Words, names: Words): Readonly<Record<string, Words>> {
  const groups: Record<string, Array<string>> = {}
  let current: Array<string> | null = null
  for (const word of words) {
    if (names.includes(word)) groups[word] = current = []
    else if (current === null) throw new Error(`${word} stands before any of ${names.join(", ")}`)
    else current.push(word)
  }
  return groups
}

function form(group: Group, words: Words): void {
  const { voters = [], learners = [] } = grouped(["voters", ...words], ["voters", "learners"])
  for (const id of [...voters, ...learners])
    group.add(id, [{ type: "raft.formed", members: { ...noMembers, voters, learners } }])
}

function disk(group: Group, [id = "", ...words]: Words): void {
  const {
    of: voters = [],
    term = [],
    vote = [],
    terms = []
  } = grouped(words, ["of", "term", "vote", "terms"])
  const entries = terms.map((text, at): Entry => ({
    index: at + 1,
    term: whole(text, "a term"),
    data: String.fromCharCode(97 + at),
    members: null
  }))
  const facts: Array<RaftFact> = [{ type: "raft.formed", members: { ...noMembers, voters } }]
  if (entries.length > 0) facts.push({ type: "raft.appended", entries })
  facts.push({ type: "raft.voted", term: whole(the(term, 0, "the term"), "the term"), vote: vote[0] ?? null })
  group.add(id, facts)
}

/** Which messages: the first or the last or all, from whom to whom, of which type. */
function chosen(group: Group, words: Words): ReadonlyArray<Envelope> {
  const rest = words.filter((word) => word !== "first" && word !== "last")
  const route = rest.find((word) => word.includes(">"))
  const type = rest.find((word) => !word.includes(">"))
  const found = group.network.filter(
    ({ from, to, message }) =>
      (route === undefined || route === `${from}>${to}`) && (type === undefined || type === nameOf(message))
  )
  if (found.length === 0) throw new Error("no such message is on its way")
  if (words.includes("first")) return found.slice(0, 1)
  return words.includes("last") ? found.slice(-1) : found
}

const nameOf = (message: RaftMessage): string => messageText(message).split(" ", 1)[0] ?? ""

function takeOff(group: Group, envelopes: ReadonlyArray<Envelope>): void {
  group.network = group.network.filter((one) => !envelopes.includes(one))
}

function deliver(group: Group, words: Words): void {
  const envelopes = chosen(group, words)
  takeOff(group, envelopes)
  for (const envelope of envelopes) group.deliver(envelope)
}

function settle(group: Group): void {
  for (let count = 0; group.network.length > 0; count++) {
    if (count === settleMax) throw new Error(`the group has not come to rest after ${settleMax} messages`)
    const [envelope] = group.network.splice(0, 1)
    if (envelope !== undefined) group.deliver(envelope)
  }
}

function propose(group: Group, [id = "", ...words]: Words): void {
  const data = words[0] === "bytes" ? words.slice(1).map((size) => "x".repeat(whole(size, "a size"))) : words
  const proposals = data.map((one) => ({ ticket: group.ticket("p"), data: one }))
  group.take(id, { type: "raft.propose", proposals })
}

function show(group: Group): void {
  for (const id of group.ids) group.tell(`${id} is ${stateText(group.role(id), group.context(id))}`)
  for (const { from, to, message } of group.network)
    group.tell(`${from} > ${to} ${messageText(message)} (on its way)`)
}

function settings(group: Group, words: Words): void {
  for (const word of words) {
    const [name = "", value = ""] = word.split("=")
    const number = whole(value, name)
    if (name === "snapshotPartBytes") group.snapshotPartBytes = number
    else if (Object.hasOwn(defaults, name)) group.settings = { ...group.settings, [name]: number }
    else throw new Error(`there is no setting ${name}`)
  }
}

function stored(group: Group, [id = "", place = ""]: Words): void {
  const [index = "", term = ""] = place.split("/")
  group.stored(id, whole(index, "the index"), whole(term, "the term"))
}

function change(group: Group, [id = "", ...words]: Words): void {
  const { voters = [], learners = [] } = grouped(words, ["voters", "learners"])
  group.take(id, { type: "raft.change", ticket: group.ticket("c"), voters, learners })
}

const each =
  (run: (group: Group, id: string) => void): Step =>
  (group, ids) => {
    for (const id of [the(ids, 0, "the member"), ...ids.slice(1)]) run(group, id)
  }

const steps: Readonly<Record<string, Step>> = {
  settings,
  form,
  disk,
  deliver,
  settle,
  propose,
  show,
  stored,
  change,
  add: each((group, id) => group.add(id, [])),
  tick: each((group, id) => group.tick(id)),
  wait: (group, [ms = ""]) => (group.timeMs += whole(ms, "the time")),
  drop: (group, words) => takeOff(group, chosen(group, words)),
  repeat: (group, words) => chosen(group, words).forEach((one) => group.deliver(one)),
  hold: (group, words) => {
    const envelopes = chosen(group, words)
    takeOff(group, envelopes)
    group.held.push(...envelopes)
  },
  release: (group) => (group.network = [...group.held.splice(0), ...group.network]),
  isolate: each((group, id) => group.isolated.add(id)),
  heal: each((group, id) => group.isolated.delete(id)),
  read: each((group, id) => group.take(id, { type: "raft.read", ticket: group.ticket("r") })),
  transfer: (group, [id = "", to = ""]) =>
    group.take(id, { type: "raft.transfer", ticket: group.ticket("t"), to }),
  lose: (group, [id = "", peer = ""]) => group.take(id, { type: "raft.lost", peer }),
  compact: (group, [id = "", index = ""]) => group.compact(id, whole(index, "the index")),
  slow: each((group, id) => group.setSlow(id, true)),
  quick: each((group, id) => group.setSlow(id, false)),
  write: (group, [id = "", how]) => group.write(id, how === "silently"),
  crash: each((group, id) => group.crash(id)),
  start: each((group, id) => group.start(id)),
  progress: each((group, id) =>
    progressText(group.context(id)).forEach((line) => group.tell(`${id} knows ${line}`))
  ),
  machine: each((group, id) => group.tell(`${id} has ${group.machine(id)}`))
}

/** What one step made happen. A step that can't be done throws with its line. */
function outcome(group: Group, line: string): ReadonlyArray<string> {
  const words = line.split(" ")
  const isQuiet = words[0] === "quietly"
  const [name = "", ...rest] = isQuiet ? words.slice(1) : words
  const step = Object.hasOwn(steps, name) ? steps[name] : undefined
  if (step === undefined) throw new Error(`there is no step ${name}: ${Object.keys(steps).join(", ")}`)
  step(group, rest)
  const told = group.takeTold()
  return isQuiet ? told.filter((one) => /^\w+: /.test(one)) : told
}

/** Run the steps of a file. Throws with the number of the line when one can't be done. */
export function runScenario(source: string): Scenario {
  const lines = source.trimEnd().split("\n")
  const [first = ""] = lines
  if (!first.startsWith("# ")) throw new Error("line 1: a scenario begins with its purpose: # …")
  const group = new Group(defaults, 1024)
  const text: Array<string> = []
  for (const [at, line] of lines.entries()) {
    if (line.startsWith("  ")) continue
    text.push(line)
    if (line === "" || line.startsWith("#")) continue
    try {
      for (const one of outcome(group, line)) text.push(`  ${one}`)
    } catch (error) {
      throw new Error(`line ${at + 1}, ${line}: ${(error as Error).message}`, { cause: error })
    }
  }
  return { purpose: first.slice(2), text: `${text.join("\n")}\n` }
}
