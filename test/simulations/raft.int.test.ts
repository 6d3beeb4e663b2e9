/** The production Raft in the simulated world: many seeds keep every promise. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { run } from "../../simulations/raft/run.ts"
import { saidBy } from "../cli/said.ts"

const seeds = 1000
/** The share of histories that may stay without a verdict; of 440 seeds it was 0.3 %. */
const undecided_max = 0.01

interface Summary {
  readonly seeds: number
  readonly seedsPerHour: number
  readonly simulatedSecondsPerSecond: number
  readonly faults: Readonly<Record<string, number>>
  readonly counts: Readonly<Record<string, number>>
  readonly coverage: ReadonlyArray<string>
  readonly violations: ReadonlyArray<unknown>
}

const simulate = (...argv: ReadonlyArray<string>) => saidBy("simulate", "raft", ...argv)

test(`${seeds} seeds keep every promise, with every fault among them`, async () => {
  const { code, out, err } = await simulate("--seeds", String(seeds), "--json")
  assert.equal(code, 0, err)
  const summary = JSON.parse(out) as Summary
  console.log(
    `  ${summary.seeds} seeds, ${summary.seedsPerHour} an hour, ${summary.simulatedSecondsPerSecond} simulated seconds a second`
  )
  assert.equal(summary.seeds, seeds)
  assert.deepEqual(summary.violations, [])
  const { undecided = 0, histories = 0 } = summary.counts
  const never = Object.entries({ ...summary.faults, ...summary.counts }).flatMap(([name, count]) =>
    count === 0 && name !== "undecided" ? [name] : []
  )
  console.log(`  ${undecided} of ${histories} histories of a key were too long to decide`)
  assert.ok(undecided <= histories * undecided_max, "histories that nobody could judge")
  assert.deepEqual(never, [], "faults that never happened")
  for (const role of ["follower", "poller", "candidate", "leader"])
    assert.ok(summary.coverage.includes(`state ${role}`), role)
  for (const move of moves) assert.ok(summary.coverage.includes(`move ${move}`), move)
  const missing = wantedPairs().filter((pair) => !summary.coverage.includes(`input ${pair}`))
  assert.deepEqual(missing, [], "inputs that a role never took")
})

const moves = [
  "follower poller",
  "follower candidate",
  "poller follower",
  "poller candidate",
  "candidate follower",
  "candidate poller",
  "candidate leader",
  "leader follower"
]

/** Whatever a role may meet. Nobody is told to take over, or that a snapshot is written, while it polls or campaigns. */
function wantedPairs(): ReadonlyArray<string> {
  const roles = ["follower", "poller", "candidate", "leader"]
  const inputs = ["tick", "propose", "read", "stored"].map((name) => `raft.${name}`)
  const messages = ["requestVote", "vote", "append", "appended"]
  const anyone = roles.flatMap((role) => [...inputs, ...messages].map((input) => `${role} ${input}`))
  const some = [
    "leader raft.change",
    "leader raft.transfer",
    "leader raft.compact",
    "leader raft.snapshotRead",
    "leader snapshotReceived",
    "follower raft.begin",
    "follower raft.compact",
    "follower raft.snapshotWritten",
    "follower snapshot",
    "follower timeoutNow"
  ]
  return [...anyone.filter((pair) => pair !== "leader append"), ...some]
}

test("seed 2409: who was elected in an old term, and hears of it late, need not have what a later term decided", () => {
  assert.equal(run(2409).violation, null)
})

test("seed 16773: a partition that flaps does not do so at one moment for ever", () => {
  assert.equal(run(16_773).violation, null)
})

test("one seed tells its options and its journal; wrong numbers are refused", async () => {
  const one = await simulate("--seed", "3")
  assert.equal(one.code, 0)
  assert.match(one.out, /^options: \{"members":/)
  assert.match(one.out, new RegExp(`^journal: ${run(3).hash}$`, "m"))
  const wrong = await simulate("--seeds", "0")
  assert.equal(wrong.code, 2)
  assert.match(wrong.err, /--seeds is 0: allowed is from 1 to 4294967295/)
})

test("no scenario of that name, and a file that is none, are refused", async () => {
  const unknown = await saidBy("simulate", "rafts")
  assert.equal(unknown.code, 2)
  assert.match(unknown.err, /there is no scenario and no file "rafts"[^]*scenarios: raft.*, swarm/)
  const other = await saidBy("simulate", "package.json")
  assert.equal(other.code, 1)
  assert.match(other.err, /package.json: line 1: "\{" is no heading, option or fault/)
})
