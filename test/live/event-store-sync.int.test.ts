import assert from "node:assert/strict"
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { Effect, Fiber } from "effect"
import type { Draft } from "../../src/events/envelope.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { layer as digest } from "../../src/live/digest.ts"
import { layer } from "../../src/live/event-store.ts"
import { Checkpointer } from "../../src/live/event-store/checkpointer.ts"
import { LogSync } from "../../src/live/event-store/log-sync.ts"

const folder = mkdtempSync(join(tmpdir(), "novacron-sync-"))
after(() => rmSync(folder, { recursive: true }))

const draft = (id: string): Draft => ({
  id,
  type: "novacron.vm.started",
  version: 1,
  timeMs: 1,
  correlation: id,
  causation: id,
  principal: { kind: "operator", name: "alice" },
  node: "n",
  answers: null,
  data: {}
})
const first = (stream: string) => [{ stream, expectedRevision: -1, facts: [draft(`${stream}#0`)] }]

test("a fact is nobody's to see before it is on the disk", async () => {
  const use = Effect.gen(function* () {
    const store = yield* EventStore
    const appending = Effect.runFork(store.append(first("vm/a")))
    // Committed, and its sync is under way: nothing here has let the event loop go on.
    assert.equal(appending.pollUnsafe(), undefined)
    assert.equal((yield* store.head).position, 0)
    assert.deepEqual(yield* store.readAll({}), [])
    assert.deepEqual(yield* store.readAll({ direction: "backwards" }), [])
    assert.deepEqual(yield* store.readStream("vm/a", { direction: "backwards", limit: 1 }), [])
    // A second append, and a repetition of the first, end after their own facts are there.
    const second = Effect.runFork(store.append(first("vm/b")))
    const again = Effect.runFork(store.append(first("vm/a")))
    const [one] = yield* Fiber.join(appending)
    assert.equal(one?.position, 1)
    assert.deepEqual(
      (yield* store.readStream("vm/a")).map((fact) => fact.id),
      ["vm/a#0"]
    )
    assert.deepEqual(
      (yield* Fiber.join(again)).map((fact) => fact.position),
      [1]
    )
    yield* Fiber.join(second)
    assert.deepEqual(
      (yield* store.readAll({ direction: "backwards" })).map((fact) => fact.position),
      [2, 1]
    )
  })
  const path = join(folder, "events.db")
  await Effect.runPromise(use.pipe(Effect.provide(layer({ path })), Effect.provide(digest)))
})

test("what is under way when the store closes is synced and answered", async () => {
  const path = join(folder, "closed.db")
  const appending = await Effect.runPromise(
    Effect.map(EventStore, (store) => Effect.runFork(store.append(first("vm/a")))).pipe(
      Effect.provide(layer({ path })),
      Effect.provide(digest)
    )
  )
  assert.equal((await Effect.runPromise(Fiber.join(appending))).length, 1)
  const facts = Effect.flatMap(EventStore, (store) => store.readAll({}))
  const read = await Effect.runPromise(facts.pipe(Effect.provide(layer({ path })), Effect.provide(digest)))
  assert.equal(read.length, 1)
})

test("the log is copied into the file while appends go on, long before SQLite would", async () => {
  const path = join(folder, "copied.db")
  const facts = (from: number) =>
    Array.from({ length: 1000 }, (_, n) => ({ ...draft(`${from + n}`), data: { text: "x".repeat(300) } }))
  const use = Effect.gen(function* () {
    const store = yield* EventStore
    const before = statSync(path).size
    let position = 0
    const append = Effect.suspend(() =>
      store.append([{ stream: "vm/a", expectedRevision: position - 1, facts: facts(position) }])
    )
    while (statSync(path).size === before) {
      assert.ok(statSync(`${path}-wal`).size < 64 * 1024 * 1024, "SQLite itself has not begun yet")
      yield* append
      position += 1000
    }
    // What goes on while it is copied is there as well.
    for (let more = 0; more < 5; more++) {
      yield* append
      position += 1000
    }
    assert.equal((yield* store.verify).position, position)
    return position
  })
  const opened = <A, E>(effect: Effect.Effect<A, E, EventStore>) =>
    Effect.runPromise(effect.pipe(Effect.provide(layer({ path })), Effect.provide(digest)))
  const position = await opened(use)
  assert.ok(!existsSync(`${path}-wal`), "the last connection was the store's own")
  assert.equal((await opened(Effect.flatMap(EventStore, (store) => store.verify))).position, position)
})

test("a thread that fails to copy the log says so once, and is not begun again", async () => {
  const warned: Array<string> = []
  const failed = Promise.withResolvers<void>()
  const path = join(folder, "none", "events.db")
  const checkpointer = new Checkpointer({ path, busyTimeoutMs: 10 }, (reason) => {
    warned.push(reason)
    failed.resolve()
  })
  const keepAlive = setInterval(() => {}, 1000)
  checkpointer.written(4 * 1024 * 1024 - 1)
  assert.deepEqual(warned, [])
  checkpointer.written(1)
  await failed.promise
  clearInterval(keepAlive)
  checkpointer.written(64 * 1024 * 1024)
  await checkpointer.close()
  assert.equal(warned.length, 1)
  assert.match(warned[0] ?? "", /unable to open database file/)
})

test("a sync tells all who asked before it began, in order, once; and a failed one says so", async () => {
  // A device that refuses to be synced.
  const refused = await new Promise((resolve) => {
    new LogSync("/dev/full").request(resolve)
  })
  assert.equal((refused as NodeJS.ErrnoException | null)?.code, "EINVAL")
  const log = new LogSync(join(folder, "events.db.head"))
  const told: Array<number> = []
  await new Promise<void>((resolve) => {
    for (let n = 0; n < 5; n++)
      log.request((error) => {
        assert.equal(error, null)
        told.push(n)
        if (n === 4) resolve()
      })
  })
  log.request(() => told.push(5))
  log.close()
  log.close()
  assert.deepEqual(told, [0, 1, 2, 3, 4, 5])
  assert.throws(() => new LogSync(join(folder, "none-wal")).request(() => {}), { code: "ENOENT" })
})

test("when a sync fails those who wait for the next are told too, and nobody is told anything else any more", async () => {
  const log = new LogSync("/dev/full")
  const told: Array<string> = []
  const tell = (who: string) => (error: NodeJS.ErrnoException | null) => told.push(`${who} ${error?.code}`)
  await new Promise<void>((resolve) => {
    log.request((error) => {
      tell("first")(error)
      // The disk is not asked again: a second sync might be a success, of what the first one lost.
      queueMicrotask(resolve)
    })
    log.request(tell("waiting"))
  })
  assert.deepEqual(told, ["first EINVAL", "waiting EINVAL"])
  log.request(tell("later"))
  assert.deepEqual(told.slice(2), ["later EINVAL"])
  log.close()
  assert.equal(told.length, 3)
})
