import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect } from "effect"
import * as fc from "fast-check"
import { replay } from "../../src/kernel/replay.ts"
import { serialize } from "../../src/kernel/turn.ts"
import { lamp, light, look, World } from "./lamp.ts"

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))
console.log(`SEED=${seed}`)

test("a checkpoint and what came after it give what all facts give, byte for byte", async () => {
  const step = fc.oneof(
    fc.record({ lamp: fc.nat(3), message: fc.constantFrom(light(50), light(500), look) }),
    fc.record({ lamp: fc.nat(3), message: fc.constant({ type: "lamp.leave" }) }),
    fc.constant("checkpoint" as const),
    fc.constant("restart" as const),
    fc.nat(300)
  )
  const lostLamps = fc.uniqueArray(fc.nat(3).map((n) => `lamp/l${n}`))
  const property = fc.asyncProperty(fc.array(step, { maxLength: 30 }), lostLamps, async (steps, names) => {
    const lost = new Set(names)
    const world = await World.open()
    for (const [n, one] of steps.entries()) {
      if (one === "checkpoint") await world.run(world.kernel.checkpoint)
      else if (one === "restart") await world.restart()
      else if (typeof one === "number") await world.pass(one)
      else await world.run(Effect.exit(world.command(`lamp/l${one.lamp}`, one.message, `c${n}`)))
    }
    const all = await world.run(replay(world.store, [lamp], { snapshots: false }))
    const short = await world.run(replay(world.store, [lamp], { snapshots: true }))
    const texts = (actors: Iterable<Parameters<typeof serialize>[0]>) =>
      [...actors].map((actor) => `${actor.stream} ${serialize(actor)}`).toSorted()
    assert.deepEqual(texts(short.values()), texts(all.values()))
    assert.deepEqual(texts(world.kernel.resident().values()), texts(all.values()))
    // A damaged snapshot is as good as none.
    const { store } = world
    const lossy: typeof store = {
      ...store,
      loadSnapshot: (stream, version) =>
        lost.has(stream) ? Effect.succeed(null) : store.loadSnapshot(stream, version)
    }
    const without = await world.run(replay(lossy, [lamp], { snapshots: true }))
    assert.deepEqual(texts(without.values()), texts(all.values()))
    await world.close()
  })
  await fc.assert(property, { seed, numRuns: 60 })
})

test("an actor that was forgotten, as the store had what it was told again, is in the next checkpoint all the same", async () => {
  const world = await World.open()
  const told = (id: string) => world.run(world.command("lamp/a", light(50), id))
  await told("first")
  await world.run(world.kernel.checkpoint)
  // More than an actor remembers the ids of.
  for (let n = 0; n < 80; n++) await told(`c${n}`)
  await told("first")
  assert.equal(world.kernel.resident().has("lamp/a"), false)
  await world.run(world.command("lamp/b", light(50), "other"))
  await world.run(world.kernel.checkpoint)
  await world.restart()
  const all = await world.run(replay(world.store, [lamp], { snapshots: false }))
  const texts = (actors: Iterable<Parameters<typeof serialize>[0]>) => [...actors].map(serialize).toSorted()
  assert.deepEqual(texts(world.kernel.resident().values()), texts(all.values()))
  await world.close()
})

test("what is in a checkpoint is not saved again after a start", async () => {
  const world = await World.open({ checkpointEvery: 2 })
  let saves = 0
  world.disk.fault = (operation) => {
    if (operation === "saveSnapshots") saves++
    return null
  }
  for (const name of ["a", "b", "c"]) await world.run(world.command(`lamp/${name}`, light(50), name))
  // The lights go out.
  for (let ms = 0; ms < 1000; ms += 100) await world.pass(100)
  await world.run(world.kernel.checkpoint)
  saves = 0
  const before = new Map(world.disk.snapshots)
  assert.equal(before.size, 4)
  await world.restart()
  await world.pass(20_000)
  assert.equal(saves, 0)
  for (const id of ["d", "e"]) await world.run(world.command("lamp/a", look, id))
  await world.pass(5000)
  assert.equal(saves, 1)
  const saved = [...world.disk.snapshots].filter(([key, one]) => before.get(key) !== one)
  assert.deepEqual(saved.map(([, { stream }]) => stream).sort(), ["kernel/checkpoint", "lamp/a"])
  await world.close()
})

test("a snapshot that is lost is saved again, and one that there can't be yet is not missed", async () => {
  const world = await World.open({ checkpointEvery: 4 })
  for (const name of ["a", "b", "c", "d"]) await world.run(world.command(`lamp/${name}`, look, name))
  await world.pass(1000)
  await world.run(world.kernel.checkpoint)
  const kept = new Map(world.disk.snapshots)
  await world.run(world.command("lamp/late", look, "late"))
  await world.restart()
  await world.pass(20_000)
  assert.deepEqual(new Map(world.disk.snapshots), kept)
  const [key] = [...kept].find(([, { stream }]) => stream === "lamp/b") ?? [""]
  assert.ok(world.disk.snapshots.delete(key))
  await world.restart()
  await world.pass(1000)
  assert.deepEqual(world.disk.snapshots.get(key), kept.get(key))
  await world.close()
})
