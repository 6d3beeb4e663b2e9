/**
 * A seed is always the same life, of every scenario: again in one process, after a hundred others, in a thread, in a fresh
 * process, and with other releases of Node, for which `hashes.json` keeps what seed 7 came to. Where a change of behaviour
 * changes that, `UPDATE=1` writes it anew; look at the difference before it is kept.
 */
import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { test } from "node:test"
import { scenarios } from "../../simulations/scenarios.ts"
import { saidBy } from "../cli/said.ts"
import { saidByChild } from "./child.ts"
import type { Hashes } from "./hash-child.ts"

interface Kept {
  /** Of which Node the hashes are. */
  readonly node: string
  readonly hashes: Readonly<Record<string, string>>
}

const seed = 7
const others = Array.from({ length: 100 }, (_, index) => 101 + index)
const isUpdate = process.env["UPDATE"] === "1"
const file = new URL("./hashes.json", import.meta.url)
const kept = JSON.parse(readFileSync(file, "utf8")) as Kept
/** A seed of swarm is a seed of one of the others. */
const names = scenarios.map(({ name }) => name).filter((name) => name !== "swarm")
/** A week of a large fleet takes seconds: it is lived twice in `scale.int.test.ts`, and once by its hash. */
const short = names.filter((name) => name !== "scale")

const hashesOf = (name: string, seeds: ReadonlyArray<number>) =>
  saidByChild<Hashes>("hash-child.ts", [name, ...seeds.map(String)])

/** The command gives a seed to a thread. */
async function hashInThread(name: string): Promise<string> {
  const { code, out, err } = await saidBy("simulate", name, "--seed", String(seed), "--json")
  assert.equal(code, 0, err)
  return (JSON.parse(out) as { readonly run: { readonly hash: string } }).run.hash
}

test("a seed is the same life, of every scenario", { concurrency: 2 }, async (t) => {
  assert.deepEqual(short, ["raft", "swim", "fleet", "fencing", "cluster"])
  await Promise.all(
    short.map((name) =>
      t.test(
        `${name}: again, after ${others.length} others, in a thread and in a fresh process`,
        async () => {
          const [[, hash] = [], [, again] = [], ...later] = await hashesOf(name, [
            seed,
            seed,
            ...others,
            seed
          ])
          const [, last] = later.at(-1) ?? []
          assert.match(hash ?? "", /^[0-9a-f]{64}$/)
          assert.equal(again, hash, "again")
          assert.equal(last, hash, `after ${others.length} others`)
          assert.equal(await hashInThread(name), hash, "in a thread")
          assert.deepEqual(await hashesOf(name, [seed]), [[seed, hash]], "in a fresh process")
          // A hash of nothing would be the same, too.
          assert.equal(new Set([hash, ...later.map(([, one]) => one)]).size, others.length + 1)
        }
      )
    )
  )
})

if (isUpdate)
  test("the hashes are written anew", async () => {
    const hashes: Record<string, string> = {}
    for (const name of names) hashes[name] = (await hashesOf(name, [seed]))[0]?.[1] ?? ""
    writeFileSync(file, `${JSON.stringify({ node: process.version, hashes }, null, 2)}\n`)
  })
else
  for (const name of names) {
    const hash = kept.hashes[name]
    const skip = hash === undefined && "no hash of it is kept yet"
    test(
      `seed ${seed} of ${name} by Node ${process.version} is what it was by ${kept.node}`,
      { skip },
      async () => {
        assert.deepEqual(await hashesOf(name, [seed]), [[seed, hash]])
      }
    )
  }
