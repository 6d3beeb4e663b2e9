/** The production Raft in the simulated world: many seeds keep every promise, and a seed is always the same life. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Worker } from "node:worker_threads"
import type { Said } from "../../simulations/main.ts"
import { run } from "../../simulations/raft/run.ts"
import { runCli } from "../../src/cli/main.ts"

const seeds = 2000

interface Summary {
  readonly seeds: number
  readonly seedsPerHour: number
  readonly simulatedSecondsPerSecond: number
  readonly counts: Readonly<Record<string, number>>
  readonly coverage: ReadonlyArray<string>
  readonly violations: ReadonlyArray<unknown>
}

async function simulate(...argv: ReadonlyArray<string>) {
  let [out, err] = ["", ""]
  const code = await runCli(
    ["simulate", "raft", ...argv],
    {},
    {
      out: (text) => (out += text),
      err: (text) => (err += text),
      isOutTerminal: false,
      isErrTerminal: false,
      environment: {},
      ask: null
    }
  )
  return { code, out, err }
}

test(`${seeds} seeds keep every promise, with every fault among them`, async () => {
  const { code, out, err } = await simulate("--seeds", String(seeds), "--json")
  assert.equal(code, 0, err)
  const summary = JSON.parse(out) as Summary
  console.log(
    `  ${summary.seeds} seeds, ${summary.seedsPerHour} an hour, ${summary.simulatedSecondsPerSecond} simulated seconds a second`
  )
  assert.equal(summary.seeds, seeds)
  assert.deepEqual(summary.violations, [])
  const never = Object.entries(summary.counts).flatMap(([name, count]) =>
    count === 0 && name !== "undecided" ? [name] : []
  )
  console.log(`  ${summary.counts["undecided"]} histories of a key were too long to decide`)
  assert.deepEqual(never, [], "faults that never happened")
  const missing = wantedPairs().filter((pair) => !summary.coverage.includes(pair))
  assert.deepEqual(missing, [], "inputs that a role never took")
})

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

test("a seed is the same life, again, after others, and in another thread", async () => {
  const first = run(3)
  for (let seed = 100; seed < 110; seed++) run(seed)
  const again = run(3)
  const thread = new Worker(new URL("../../simulations/main.ts", import.meta.url))
  const elsewhere = await new Promise<Said>((resolve, reject) => {
    thread.on("message", resolve)
    thread.on("error", reject)
    thread.postMessage(3)
  })
  await thread.terminate()
  assert.equal(again.hash, first.hash)
  assert.equal(elsewhere.hash, first.hash)
  assert.notEqual(run(4).hash, first.hash)
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
