/** The log of a group's member: what was acknowledged is found again, what is damaged is said, what was torn is cut off. */
import assert from "node:assert/strict"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import type { TestContext } from "node:test"
import * as fc from "fast-check"
import { keep, keptAs, initialContext } from "../../src/actors/raft/step.ts"
import type { Durable } from "../../src/actors/raft/step.ts"
import type { Message } from "../../src/events/envelope.ts"
import {
  decodeFacts,
  decodeMessage,
  encodeFacts,
  encodeMessage,
  NotUnderstood
} from "../../src/live/consensus/codec.ts"
import { LogDamaged, LogFile } from "../../src/live/consensus/log-file.ts"
import type { LogFileOptions } from "../../src/live/consensus/log-file.ts"
import type { GroupMessage } from "../../src/kernel/group-node.ts"

const seed = 20_261_129

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "novacron-log-"))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

const failing = (error: Error) => {
  throw error
}

function opened(folder: string, options: Partial<LogFileOptions> = {}): LogFile {
  const log = LogFile.open({ folder, onFailure: failing, ...options })
  if (log instanceof LogDamaged) throw log
  return log
}

const voted = (term: number, vote: string | null = null): Message => ({ type: "raft.voted", term, vote })
const appended = (from: number, term: number, ...data: ReadonlyArray<string>): Message => ({
  type: "raft.appended",
  entries: data.map((one, at) => ({ index: from + at, term, data: one, members: null }))
})

const stored = (log: LogFile, facts: ReadonlyArray<Message>) =>
  new Promise<void>((resolve) => {
    log.append(facts, resolve)
  })

const fileOf = (folder: string) =>
  readdirSync(folder)
    .filter((name) => name.endsWith(".log"))
    .map((name) => join(folder, name))

test("what was stored is there again, in order, whatever it says", async (t) => {
  const folder = scratch(t)
  const facts = [voted(1, "n1"), appended(1, 1, "", 'é \u2028 🦀 \\ " \0', "x".repeat(100_000)), voted(2)]
  const log = opened(folder)
  assert.deepEqual(log.facts, [])
  const told: Array<number> = []
  await Promise.all(facts.map((fact, at) => stored(log, [fact]).then(() => told.push(at))))
  assert.deepEqual(told, [0, 1, 2])
  log.close()
  const again = opened(folder)
  assert.deepEqual(again.facts, facts)
  await stored(again, [voted(3), voted(4)])
  again.close()
  const third = opened(folder)
  assert.deepEqual(third.facts, [...facts, voted(3), voted(4)])
  third.close()
})

test("a last record that is not whole is cut off; one that was acknowledged, or lies before whole ones, is damage", async (t) => {
  const folder = scratch(t)
  const log = opened(folder)
  await stored(log, [voted(1)])
  const first = readFileSync(fileOf(folder)[0] ?? "").findLastIndex((octet) => octet !== 0) + 1
  await stored(log, [voted(2)])
  const second = readFileSync(fileOf(folder)[0] ?? "").findLastIndex((octet) => octet !== 0) + 1
  await stored(log, [voted(3)])
  log.close()
  const [path = ""] = fileOf(folder)
  const bytes = readFileSync(path)
  const acknowledged = readFileSync(join(folder, "acknowledged"))
  const open = () => {
    const found = LogFile.open({ folder, onFailure: failing })
    if (found instanceof LogDamaged) return found
    found.close()
    return found.facts
  }
  for (let at = first; at < second; at += 3) {
    const damaged = Buffer.from(bytes)
    damaged[at] = (damaged[at] ?? 0) ^ 0x40
    writeFileSync(path, damaged)
    const found = open()
    assert.ok(found instanceof LogDamaged, `octet ${at}`)
    assert.equal(found.record, 1)
  }
  // Cut off within the last one, which was acknowledged.
  writeFileSync(path, bytes.subarray(0, second + 5))
  assert.match(String((open() as LogDamaged).message), /record 2: up to 2 was acknowledged/)
  // The same after a power failure that took the word of it.
  writeFileSync(path, bytes.subarray(0, second + 5))
  rmSync(join(folder, "acknowledged"))
  assert.deepEqual(open(), [voted(1), voted(2)])
  assert.equal(statSync(path).size, second, "what was not whole is gone")
  writeFileSync(join(folder, "acknowledged"), acknowledged)
  assert.ok(open() instanceof LogDamaged)
  rmSync(path)
  assert.match(String((open() as LogDamaged).message), /no record is there/)
})

test("a record in another one's place is none", async (t) => {
  const folder = scratch(t)
  const log = opened(folder)
  await stored(log, [voted(1)])
  await stored(log, [voted(1)])
  log.close()
  const [path = ""] = fileOf(folder)
  const bytes = readFileSync(path)
  const length = 8 + bytes.readUInt32LE(0)
  bytes.copy(bytes, length, 0, length)
  writeFileSync(path, bytes)
  assert.ok(LogFile.open({ folder, onFailure: failing }) instanceof LogDamaged)
})

test("begun anew it has what it was given, and what came after; the older file goes", async (t) => {
  const folder = scratch(t)
  const log = opened(folder, { fileBytes_max: 1000 })
  for (let term = 1; term < 100; term++) await stored(log, [voted(term, "somebody")])
  assert.equal(log.isLarge, true)
  const before = stored(log, [voted(100)])
  log.rewrite([voted(100), appended(1, 9, "kept")])
  const after = stored(log, [voted(101)])
  await Promise.all([before, after])
  assert.equal(log.isLarge, false)
  assert.equal(fileOf(folder).length, 1)
  log.close()
  const again = opened(folder)
  assert.deepEqual(again.facts, [voted(100), appended(1, 9, "kept"), voted(101)])
  again.close()
  // A crash while it was begun anew leaves an empty file, or two whole ones.
  const [path = ""] = fileOf(folder)
  writeFileSync(join(folder, "00000000ffffffff.log"), Buffer.alloc(5000))
  const third = opened(folder)
  assert.equal(third.facts.length, 3)
  assert.ok(existsSync(path))
  assert.equal(fileOf(folder).length, 1)
  third.close()
})

test("few facts stand for all that were kept", () => {
  const members = { voters: ["a", "b"], outgoing: [], learners: [], learnersNext: [] }
  const entry = (index: number, term: number, isChange: boolean) => ({
    index,
    term,
    data: isChange ? null : `d${index}`,
    members: isChange ? { ...members, learners: [`l${index}`] } : null
  })
  const drawn = fc.array(fc.record({ isChange: fc.boolean(), compact: fc.nat(3) }), { maxLength: 30 })
  fc.assert(
    fc.property(drawn, (steps) => {
      let all: Durable = initialContext
      all = keep(all, { type: "raft.installed", index: 5, term: 2, members })
      for (const [at, { isChange, compact }] of steps.entries()) {
        const { last, base } = all.log
        all = keep(all, { type: "raft.voted", term: at + 3, vote: null })
        all = keep(all, { type: "raft.appended", entries: [entry(last + 1, at + 3, isChange)] })
        if (compact === 0 && last > base) all = keep(all, { type: "raft.compacted", index: last })
      }
      let again: Durable = initialContext
      for (const fact of keptAs(all)) again = keep(again, fact)
      // Whose entry is forgotten, and that is all that is looked at, is a member since the base.
      const since = ({ log, history }: Durable) =>
        history.map(({ index, members: ids }) => [Math.max(index, log.base), ids])
      const seen = (durable: Durable) => {
        const { term, vote, log } = durable
        return [term, vote, log.base, log.baseTerm, log.slice(log.base + 1), since(durable)]
      }
      assert.deepEqual(seen(again), seen(all))
    }),
    { seed, numRuns: 200 }
  )
})

const messages: ReadonlyArray<GroupMessage> = [
  {
    kind: "raft",
    message: { type: "requestVote", term: 3, lastIndex: 9, lastTerm: 2, poll: true, forced: false }
  },
  {
    kind: "raft",
    message: {
      type: "append",
      term: 3,
      previousIndex: 1,
      previousTerm: 1,
      entries: [
        { index: 2, term: 3, data: 'a "b" 🦀', members: null },
        {
          index: 3,
          term: 3,
          data: null,
          members: { voters: ["a"], outgoing: [], learners: ["b"], learnersNext: [] }
        }
      ],
      commit: 1,
      round: 7
    }
  },
  { kind: "propose", id: 4, life: "x", term: 3, data: "é" },
  { kind: "ask", id: 5, ask: { what: "change", voters: ["a"], learners: [] } },
  { kind: "told", id: 5, answer: { answer: "declined", reason: "full", leader: null } },
  { kind: "facts", id: 6, after: 10, limit: 5 },
  { kind: "journal", id: 6, facts: [], problem: null }
]

test("messages come as they were sent, and anything else is not understood", () => {
  for (const message of messages)
    assert.deepEqual(decodeMessage(encodeMessage(message, 4).subarray(4)), message)
  const facts = [voted(1), appended(1, 1, "a", "b")]
  assert.deepEqual(decodeFacts(encodeFacts(facts, 0)), facts)
  const understands = (bytes: Uint8Array) => {
    try {
      decodeMessage(Buffer.from(bytes))
      return true
    } catch (error) {
      assert.ok(error instanceof NotUnderstood, String(error))
      return false
    }
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void understands(bytes)),
    { seed }
  )
  const json = fc.jsonValue().map((value) => {
    const head = Buffer.from(JSON.stringify(value))
    const length = Buffer.alloc(4)
    length.writeUInt32LE(head.length)
    return Buffer.concat([length, head])
  })
  fc.assert(
    fc.property(json, (bytes) => void understands(bytes)),
    { seed, numRuns: 500 }
  )
  const mangled = fc
    .tuple(fc.constantFrom(...messages), fc.nat(), fc.nat(255))
    .map(([message, at, octet]) => {
      const bytes = Buffer.from(encodeMessage(message, 0))
      bytes[at % bytes.length] = octet
      return bytes
    })
  fc.assert(
    fc.property(mangled, (bytes) => void understands(bytes)),
    { seed, numRuns: 2000 }
  )
})
