/**
 * What the simulator's clients did, as porcupine reads it: it says of each key what our own checker says, of lives in which
 * every promise was kept, of those with a planted mistake, and of drawn histories.
 */
import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { isLinearizable } from "../../simulations/checkers/linearizability.ts"
import type { Call } from "../../simulations/checkers/linearizability.ts"
import { porcupine } from "../../simulations/histories.ts"
import type { Operation } from "../../simulations/raft/machine.ts"
import { makeRandom } from "../../simulations/world/random.ts"
import type { Random } from "../../simulations/world/random.ts"
import { saidBy } from "../cli/said.ts"
import { saidByChild } from "./child.ts"
import type { Told } from "./history-child.ts"
import { askPorcupine, buildPorcupine } from "./porcupine.ts"

const folder = mkdtempSync(join(tmpdir(), "novacron-histories-"))
after(() => rmSync(folder, { recursive: true, force: true }))
const built = await buildPorcupine(folder)
const program = "path" in built ? built.path : ""
const skip = "missing" in built ? built.missing : false

const verdictOf = (isOrdered: boolean | null) =>
  isOrdered === null ? "Unknown" : isOrdered ? "Ok" : "Illegal"

/** What ours says of each key. */
const ours = (history: ReadonlyMap<string, ReadonlyArray<Call>>): Readonly<Record<string, string>> =>
  Object.fromEntries([...history].map(([key, calls]) => [key, verdictOf(isLinearizable(calls))]))

function write(name: string, history: ReadonlyMap<string, ReadonlyArray<Call>>): string {
  const path = join(folder, name)
  writeFileSync(path, porcupine([...history.values()].flat()))
  return path
}

/** `novacron simulate raft` of one seed. */
async function simulated(seed: number): Promise<string> {
  const path = join(folder, `clean-${seed}`)
  const { code, err } = await saidBy("simulate", "raft", "--seed", String(seed), "--history-porcupine", path)
  assert.equal(code, 0, err)
  return path
}

const seedsClean = Array.from({ length: 10 }, (_, index) => index + 1)

test("lives in which every promise was kept", { skip }, async () => {
  const files = []
  for (const seed of seedsClean) files.push(await simulated(seed))
  const said = await askPorcupine(program, files)
  assert.equal(said.length, seedsClean.length)
  for (const [index, { keys, operations }] of said.entries()) {
    console.log(`  seed ${seedsClean[index]}: ${operations} operations on ${Object.keys(keys).join(", ")}`)
    assert.ok(operations > 0 && Object.keys(keys).length > 0)
    for (const [key, verdict] of Object.entries(keys)) assert.equal(verdict, "Ok", `${files[index]} ${key}`)
  }
})

/** With keys that are in order and keys that are not. */
const planted = { mutant: "read-before-own-entry", seeds: [33, 37, 54, 61, 77, 91, 95] }

test(`lives with a planted mistake: ${planted.mutant}`, { skip }, async () => {
  const { unapplied, lives } = await saidByChild<Told>("history-child.ts", [
    planted.mutant,
    ...planted.seeds.map(String)
  ])
  assert.deepEqual(unapplied, [], "edits whose text is not there once")
  const files = lives.map(({ seed, history }) => write(`planted-${seed}`, history))
  const said = await askPorcupine(program, files)
  assert.equal(said.length, planted.seeds.length)
  for (const [index, { seed, promised, history }] of lives.entries()) {
    console.log(`  seed ${seed}: ${JSON.stringify(said[index]?.keys)}`)
    assert.equal(promised, "linearizability", `seed ${seed}`)
    assert.ok(Object.values(said[index]?.keys ?? {}).includes("Illegal"), `seed ${seed}`)
    assert.deepEqual({ ...said[index]?.keys }, ours(history), `seed ${seed}`)
  }
})

/** Calls around the moments at which a real register did them; one of the answers may be another than it gave. */
function drawn(random: Random, key: string, beginMs: number): ReadonlyArray<Call> {
  let register: string | null = null
  const calls: Array<Call> = []
  const aroundMs = 0.5 + random.next() * 2.5
  for (let at = 0; at < 14; at++) {
    const calledMs = beginMs + 10 + at - random.next() * aroundMs
    const answeredMs = random.chance(0.1)
      ? Number.POSITIVE_INFINITY
      : beginMs + 10 + at + random.next() * aroundMs
    const draw = random.next()
    const expected = random.chance(0.5) ? register : at < 2 ? null : `v${at - 2}`
    const [value, before]: [string, string | null] = [`v${at}`, register]
    const operation: Operation =
      draw < 0.4
        ? { op: "read", key }
        : draw < 0.7
          ? { op: "write", key, value }
          : { op: "swap", key, expected, value }
    const isSwapped = operation.op === "swap" && expected === register
    const happens = answeredMs !== Number.POSITIVE_INFINITY || random.chance(0.5)
    if (happens && (operation.op === "write" || isSwapped)) register = value
    const result = operation.op === "read" ? before : operation.op === "write" ? null : isSwapped
    calls.push({
      operation,
      calledMs,
      answeredMs,
      result: answeredMs === Number.POSITIVE_INFINITY ? undefined : result
    })
  }
  const at = random.int(0, calls.length - 1)
  const { operation, result, ...rest } = calls[at] as Call
  if (result === undefined || operation.op === "write" || random.chance(0.4)) return calls
  const other =
    operation.op === "swap" ? result !== true : random.chance(0.3) ? null : `v${random.int(0, 13)}`
  return calls.with(at, { operation, ...rest, result: other })
}

const isNoFailure = ({ operation, result }: Call) => operation.op !== "swap" || result !== false

test("drawn histories, each of a key of its own", { skip }, async () => {
  const seed = 20_261_129
  const random = makeRandom(seed)
  const history = new Map(
    Array.from({ length: 2000 }, (_, index) => [`k${index}`, drawn(random, `k${index}`, index * 1000)])
  )
  const [said] = await askPorcupine(program, [write("drawn", history)])
  const illegal = Object.values(said?.keys ?? {}).filter((verdict) => verdict === "Illegal").length
  assert.deepEqual({ ...said?.keys }, ours(history))
  // Both look at what a swap that failed saw.
  const bySwaps = [...history.values()].filter(
    (calls) => isLinearizable(calls) === false && isLinearizable(calls.filter(isNoFailure)) === true
  ).length
  console.log(
    `  seed ${seed}: ${illegal} of ${history.size} are in no order, ${bySwaps} by a failed swap alone`
  )
  assert.ok(illegal > 300 && illegal < history.size - 300, String(illegal))
  assert.ok(bySwaps > 10, String(bySwaps))
})

test("a history that can't be read is said to be, and never passed over", { skip }, async () => {
  const wrong = [
    `{:process 0, :type :invoke, :f :append, :key "k", :value "a"}`,
    `{:process 0, :type :ok, :f :put, :key "k", :value "a"}`,
    `{:process 0, :type :invoke, :f :cas, :key "k", :value "a"}`
  ]
  for (const [index, line] of wrong.entries()) {
    const path = join(folder, `wrong-${index}`)
    writeFileSync(path, `${line}\n`)
    const code = await new Promise((resolve) => {
      execFile(program, [path], (error) => resolve(error?.code))
    })
    assert.equal(code, 1, line)
  }
})
