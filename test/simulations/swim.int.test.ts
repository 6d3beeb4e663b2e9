/** The production SWIM in the simulated world: many seeds keep every promise, and a seed is always the same life. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Worker } from "node:worker_threads"
import type { Answer, Said, Task } from "../../simulations/main.ts"
import { run } from "../../simulations/swim/run.ts"
import { saidBy } from "../cli/said.ts"

const seeds = 200

interface Summary {
  readonly seeds: number
  readonly seedsPerHour: number
  readonly simulatedSecondsPerSecond: number
  readonly counts: Readonly<Record<string, number>>
  readonly coverage: ReadonlyArray<string>
  readonly violations: ReadonlyArray<unknown>
}

const simulate = (...argv: ReadonlyArray<string>) => saidBy("simulate", "swim", ...argv)

test(`${seeds} seeds keep every promise, with every fault among them`, async () => {
  const { code, out, err } = await simulate("--seeds", String(seeds), "--json")
  assert.equal(code, 0, err)
  const summary = JSON.parse(out) as Summary
  console.log(
    `  ${summary.seeds} seeds, ${summary.seedsPerHour} an hour, ${summary.simulatedSecondsPerSecond} simulated seconds a second`
  )
  assert.equal(summary.seeds, seeds)
  assert.deepEqual(summary.violations, [])
  const never = Object.entries(summary.counts).flatMap(([name, count]) => (count === 0 ? [name] : []))
  assert.deepEqual(never, [], "what never happened")
  const missing = wantedPairs().filter((pair) => !summary.coverage.includes(pair))
  assert.deepEqual(missing, [], "inputs that a role never took")
})

/** Whatever a role may meet: a stranger is pinged by those that still know it from before. */
function wantedPairs(): ReadonlyArray<string> {
  const heads = ["ping", "pingRequest", "ack", "nack", "gossip", "compare", "entries"]
  const tick = "swim.tick"
  return [
    ...[...heads, tick, "swim.describe"].map((input) => `member ${input}`),
    ...[tick, "swim.begin", "swim.join", "swim.describe", "ping", "gossip", "compare"].map(
      (input) => `alone ${input}`
    ),
    ...[...heads, tick, "swim.leave"].map((input) => `leaving ${input}`),
    `left ${tick}`
  ]
}

test("a seed is the same life, again, after others, and in another thread", async () => {
  const first = run(3)
  for (let seed = 100; seed < 105; seed++) run(seed)
  const again = run(3)
  const thread = new Worker(new URL("../../simulations/main.ts", import.meta.url))
  const elsewhere = await new Promise<Said>((resolve, reject) => {
    thread.on("message", (answer: Answer) => ("said" in answer ? resolve(answer.said) : reject(answer.wrong)))
    thread.on("error", reject)
    thread.postMessage({ task: "run", scenario: "swim", seed: 3, history: false } satisfies Task)
  })
  await thread.terminate()
  assert.equal(again.hash, first.hash)
  assert.equal(elsewhere.hash, first.hash)
  assert.notEqual(run(4).hash, first.hash)
})
