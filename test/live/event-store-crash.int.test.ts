/** `kill -9` again and again: what was acknowledged is there, whole, in order and with its chain. */
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { test } from "node:test"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { Effect, Layer } from "effect"
import * as LiveDigest from "../../src/live/digest.ts"
import { StoreLocked } from "../../src/live/event-store/errors.ts"
import { layer } from "../../src/live/event-store.ts"
import { drafts, within } from "../conformance/event-store.ts"
import { withPath } from "./event-store-folder.ts"
import { seeded } from "./event-store-seed.ts"

const worker = fileURLToPath(new URL("./event-store-append-worker.ts", import.meta.url))
const placeAt = (path: string) => ({
  layer: Layer.provideMerge(Layer.fresh(layer({ path, indexAfterFacts: 30 })), LiveDigest.layer)
})

function start(path: string, batchFacts: number): { child: ChildProcess; lines: AsyncIterator<string> } {
  const child = spawn(process.execPath, [worker, path, String(batchFacts)], {
    stdio: ["pipe", "pipe", "inherit"]
  })
  return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() }
}

async function kill(child: ChildProcess): Promise<void> {
  const exited = once(child, "exit")
  child.kill("SIGKILL")
  await exited
}

/** Let it append for `delayMs` after its first acknowledgement, kill it, and return what it had said last. */
async function runAndKill(path: string, batchFacts: number, delayMs: number): Promise<string> {
  const { child, lines } = start(path, batchFacts)
  let last = ""
  let killing: Promise<void> | undefined
  const reading = (async () => {
    for (let line = await lines.next(); line.done !== true; line = await lines.next()) {
      if (last === "") assert.equal(line.value, "open")
      last = line.value
      if (last !== "open") killing ??= setTimeout(delayMs).then(() => kill(child))
    }
  })()
  await reading
  await killing
  return last
}

test("no acknowledged fact is lost, whenever the process is killed", async () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed}`)
  const random = seeded(seed)
  await withPath(async (path) => {
    for (let round = 0; round < 30; round++) {
      const batchFacts = [1, 3, 16, 200][Math.floor(random() * 4)] ?? 1
      const said = await runAndKill(path, batchFacts, random() * 40)
      const [position, hash] = said.split(" ")
      await within(placeAt(path), (store) =>
        Effect.gen(function* () {
          const head = yield* store.verify
          assert.ok(head.position >= Number(position), `${said} was acknowledged, ${head.position} is there`)
          const [fact] = yield* store.readAll({ from: Number(position), limit: 1 })
          assert.equal(fact?.hash, hash)
          for (const stream of yield* store.streams("")) {
            const [last] = yield* store.readStream(stream, { direction: "backwards", limit: 1 })
            const all = yield* store.readStream(stream, { limit: 1_000_000 })
            assert.equal(all.length, (last?.revision ?? -1) + 1)
          }
        })
      )
    }
  })
})

test("a second writer is refused with the holder's pid until the holder is gone, also by kill -9", async () => {
  await withPath(async (path) => {
    const { child, lines } = start(path, 0)
    try {
      assert.equal((await lines.next()).value, "open")
      const opening = within(placeAt(path), () => Effect.void)
      await assert.rejects(opening, (error) => {
        assert.ok(error instanceof StoreLocked, String(error))
        assert.equal(error.path, path)
        assert.equal(error.holderPid, child.pid)
        return true
      })
    } finally {
      await kill(child)
    }
    await within(placeAt(path), (store) =>
      Effect.gen(function* () {
        yield* store.append([{ stream: "vm/a", expectedRevision: -1, facts: drafts("a", 1) }])
        const again = yield* Effect.promise(() =>
          within(placeAt(path), () => Effect.void).catch((error: unknown) => error)
        )
        assert.ok(again instanceof StoreLocked, "the same process is refused too")
        assert.equal(again.holderPid, process.pid)
        yield* store.append([{ stream: "vm/a", expectedRevision: 0, facts: drafts("b", 1) }])
      })
    )
  })
})
