/** How a scenario shows what a member of a group says, records and knows: one short line each. */
import type { Entry, Members, RaftFact, RaftMessage, RaftRequest } from "../../src/events/raft.ts"
import type { RaftContext } from "../../src/actors/raft/step.ts"

const place = (index: number, term: number) => `${index}/${term}`

export function membersText({ voters, outgoing, learners, learnersNext }: Members): string {
  const part = (name: string, ids: ReadonlyArray<string>) =>
    ids.length === 0 ? "" : ` ${name} ${ids.join("+")}`
  return `${voters.join("+") || "nobody"}${part("before", outgoing)}${part("learners", learners)}${part("then learners", learnersNext)}`
}

/** Long data is told by its length. */
function entryText({ index, term, data, members }: Entry): string {
  if (members !== null) return `${place(index, term)}={${membersText(members)}}`
  if (data === null) return place(index, term)
  return `${place(index, term)}=${data.length > 8 ? `(${data.length})` : data}`
}

const entriesText = (entries: ReadonlyArray<Entry>) => `[${entries.map(entryText).join(" ")}]`

export function messageText(message: RaftMessage): string {
  const term = `t${message.term}`
  switch (message.type) {
    case "requestVote": {
      const { poll, forced, lastIndex, lastTerm } = message
      return `${poll ? "poll" : "requestVote"} ${term} last ${place(lastIndex, lastTerm)}${forced ? " forced" : ""}`
    }
    case "vote":
      return `${message.poll ? "poll's vote" : "vote"} ${term} ${message.granted ? "granted" : "refused"}`
    case "append": {
      const { previousIndex, previousTerm, entries, commit, round } = message
      return `append ${term} after ${place(previousIndex, previousTerm)} ${entriesText(entries)} commit ${commit} round ${round}`
    }
    case "appended": {
      const { success, index, hintIndex, hintTerm, round } = message
      const what = success ? `up to ${index}` : `refused at ${index} hint ${place(hintIndex, hintTerm)}`
      return `appended ${term} ${what} round ${round}`
    }
    case "snapshot": {
      const { index, indexTerm, offset, data, last, round } = message
      return `snapshot ${term} of ${place(index, indexTerm)} at ${offset} "${data}"${last ? " end" : ""} round ${round}`
    }
    case "snapshotReceived":
      if (message.index === 0) return `snapshotReceived ${term} writes round ${message.round}`
      return `snapshotReceived ${term} of ${message.index} wants ${message.offset} round ${message.round}`
    case "timeoutNow":
      return `timeoutNow ${term}`
  }
}

/** What goes to the disk; null for what a restart forgets. */
export function factText(fact: RaftFact): string | null {
  switch (fact.type) {
    case "raft.formed":
      return `formed ${membersText(fact.members)}`
    case "raft.voted":
      return `term ${fact.term} vote ${fact.vote ?? "-"}`
    case "raft.appended":
      return entriesText(fact.entries)
    case "raft.compacted":
      return `compacted to ${fact.index}`
    case "raft.installed":
      return `installed ${place(fact.index, fact.term)} of ${membersText(fact.members)}`
    default:
      return null
  }
}

/** Of requests other than messages. */
export function requestText(request: Exclude<RaftRequest, { readonly port: "peer" }>): string {
  switch (request.port) {
    case "machine":
      return request.op === "apply"
        ? `applies ${entriesText(request.entries)}`
        : `restores the snapshot of ${request.index}`
    case "caller":
      return callerText(request)
    case "snapshots":
      return request.op === "read"
        ? `reads its snapshot for ${request.to} at ${request.offset}`
        : `writes the part at ${request.message.offset} of the snapshot of ${request.message.index}`
  }
}

function callerText(request: Extract<RaftRequest, { readonly port: "caller" }>): string {
  switch (request.op) {
    case "placed":
      return `places ${request.ticket} at ${place(request.index, request.term)}`
    case "readable":
      return `answers ${request.ticket} as of ${request.index}`
    case "declined":
      return `declines ${request.ticket}: ${request.reason}${request.leader === null ? "" : `, the leader is ${request.leader}`}`
  }
}

/** What a member knows, as far as a reader of a scenario follows it. */
export function stateText(role: string, context: RaftContext): string {
  const { term, vote, log, commit, stored, leader, history } = context
  const parts = [
    role,
    `t${term}`,
    ...(vote === null ? [] : [`voted ${vote}`]),
    `log ${log.base === 0 ? "" : `${place(log.base, log.baseTerm)}..`}${place(log.last, log.lastTerm)}`,
    ...(stored === log.last ? [] : [`stored ${stored}`]),
    `commit ${commit}`,
    ...(leader === null ? [] : [`leader ${leader}`])
  ]
  return `${parts.join(" ")} of ${membersText(history.at(-1)?.members ?? { voters: [], outgoing: [], learners: [], learnersNext: [] })}`
}

/** What a leader knows of the others. */
export function progressText({ progress }: RaftContext): ReadonlyArray<string> {
  return Object.entries(progress).map(
    ([id, { match, next, state, waits, inflightBytes, active, snapshot }]) =>
      [
        `${id} ${state} match ${match} next ${next}`,
        ...(waits ? ["waits"] : []),
        ...(inflightBytes > 0 ? [`under way ${inflightBytes} bytes`] : []),
        ...(snapshot === null ? [] : [`snapshot ${snapshot.index} at ${snapshot.offset}`]),
        ...(active ? [] : ["silent"])
      ].join(" ")
  )
}
