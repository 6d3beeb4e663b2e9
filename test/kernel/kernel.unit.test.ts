import assert from "node:assert/strict"
import { test } from "node:test"
import { Clock, Deferred, Effect, Exit, Result, Scheduler, Semaphore, Stream } from "effect"
import type { Draft } from "../../src/events/envelope.ts"
import { AgentUnreachable } from "../../src/kernel/ports/agents.ts"
import { serialize } from "../../src/kernel/turn.ts"
import { light, look, World } from "./lamp.ts"

function firstDraft(world: World): Draft {
  const draft = world.appends[0]?.[0]?.facts[0]
  assert.ok(draft)
  return draft
}

test("what has gathered is appended at once, across actors", async () => {
  const world = await World.open()
  const streams = Array.from({ length: 20 }, (_, n) => `lamp/l${n}`)
  const commands = streams.map((stream) => world.command(stream, light(), stream))
  await world.run(Effect.all(commands, { concurrency: "unbounded" }))
  assert.equal(world.appends.length, 1)
  assert.deepEqual(
    world.appends[0]?.map(({ stream }) => stream),
    streams
  )
  await world.close()
})

test("two commands to one actor in one batch see each other", async () => {
  const world = await World.open()
  const [first, second] = await world.run(
    Effect.all([world.command("lamp/a", light(), "1"), world.command("lamp/a", light(), "2")], {
      concurrency: "unbounded"
    })
  )
  assert.deepEqual([first.revision, second.revision], [0, 1])
  assert.equal(world.appends.length, 1)
  await world.close()
})

/** Holds every append up from now on; what it returns lets the one that came `n`th go on. */
function holdAppends(world: World): (n: number) => Promise<void> {
  const gates: Array<Deferred.Deferred<void>> = []
  world.beforeAppend = Effect.suspend(() => {
    const gate = Deferred.makeUnsafe<void>()
    gates.push(gate)
    return Deferred.await(gate)
  })
  return async (n) => {
    await world.run(Deferred.succeed(gates[n]!, undefined))
    await world.pass(0)
  }
}

test("while one batch is written the next is decided, of other actors; one of the same actor waits, in order", async () => {
  const world = await World.open()
  const release = holdAppends(world)
  const start = (stream: string, id: string) =>
    world.run(world.command(stream, light(), id)).then(({ revision }) => `${id} ${revision}`)
  const streams = () => world.appends.map((batch) => batch.map(({ stream }) => stream).join())
  const first = start("lamp/a", "1")
  await world.pass(0)
  const [again, after] = [start("lamp/a", "2"), start("lamp/a", "3")]
  await world.pass(0)
  assert.deepEqual(streams(), ["lamp/a"], "nothing is decided on what is not durable")
  const other = start("lamp/b", "4")
  await world.pass(0)
  assert.deepEqual(streams(), ["lamp/a", "lamp/b"])
  const third = start("lamp/c", "5")
  await world.pass(0)
  assert.equal(world.appends.length, 2, "two batches are under way, which is the limit")
  await release(1)
  assert.equal(await other, "4 0")
  assert.deepEqual(streams(), ["lamp/a", "lamp/b", "lamp/c"])
  assert.equal(world.context("lamp/a")?.lit, 0)
  await release(0)
  assert.equal(await first, "1 0")
  assert.deepEqual(streams().slice(3), ["lamp/a"], "those that waited go on together")
  await release(3)
  await release(2)
  assert.deepEqual(await Promise.all([again, after, third]), ["2 1", "3 2", "5 0"])
  assert.deepEqual(
    world.disk.facts.map(({ stream, causation }) => `${stream} ${causation}`),
    ["lamp/b 4", "lamp/a 1", "lamp/a 2", "lamp/a 3", "lamp/c 5"]
  )
  await world.close()
})

test("beside a batch only one as large is begun; a smaller one waits for more, or for its end", async () => {
  const world = await World.open()
  const release = holdAppends(world)
  const start = (names: ReadonlyArray<string>) =>
    world.run(
      Effect.all(
        names.map((name) => world.command(`lamp/${name}`, light(), name)),
        { concurrency: "unbounded" }
      )
    )
  const sizes = () => world.appends.map((batch) => batch.length)
  const all = [start(["a", "b", "c"])]
  await world.pass(0)
  all.push(start(["d"]))
  await world.pass(0)
  all.push(start(["e"]))
  await world.pass(0)
  assert.deepEqual(sizes(), [3])
  all.push(start(["f"]))
  await world.pass(0)
  assert.deepEqual(sizes(), [3, 3], "three are as many as are under way")
  all.push(start(["g"]))
  await release(1)
  assert.deepEqual(sizes(), [3, 3], "one is not")
  await release(0)
  assert.deepEqual(sizes(), [3, 3, 1], "nothing is under way any more")
  await release(2)
  await Promise.all(all)
  await world.close()
})

/**
 * Sizes of the batches of 64 callers over 120 ms, on a disk that takes 5 ms for each. The first 17 begin, and the others when those are under way.
 * Whoever is answered is back so many milliseconds later, together with all others who were, or, with 0, within his answer.
 */
async function batchesOf(awayMs: number, actors = 64): Promise<ReadonlyArray<number>> {
  const world = await World.open()
  const disk = Semaphore.makeUnsafe(1)
  world.beforeAppend = disk.withPermit(Effect.sleep(5))
  const principal = { kind: "operator" as const, name: "t" }
  const away: Array<{ readonly caller: number; readonly untilMs: number }> = []
  let nowMs = 0
  let id = 0
  let isOpen = true
  const ask = (caller: number): void => {
    const command = {
      stream: `lamp/l${caller % actors}`,
      message: light(),
      id: `${id}`,
      correlation: `${id++}`,
      principal
    }
    world.kernel.offer(command, () => {
      if (awayMs === 0 && isOpen) ask(caller)
      else away.push({ caller, untilMs: nowMs + awayMs })
    })
  }
  const callers = Array.from({ length: 64 }, (_, caller) => caller)
  for (const caller of callers.slice(0, 17)) ask(caller)
  await world.pass(1)
  for (const caller of callers.slice(17)) ask(caller)
  for (; nowMs < 120; nowMs++) {
    await world.pass(1)
    while (away[0] !== undefined && away[0].untilMs <= nowMs) ask(away.shift()!.caller)
  }
  const sizes = world.appends.map((batch) => batch.flatMap(({ facts }) => facts).length)
  isOpen = false
  await world.pass(20)
  await world.close()
  return sizes
}

test("of many callers one half is decided while the other half's facts are written, unless they are back at once", async () => {
  const sizes = await batchesOf(1)
  assert.deepEqual(sizes.slice(0, 2), [17, 47], "so many are not known of yet")
  const settled = sizes.slice(5)
  assert.ok(settled.length > 10 && settled.every((size) => size === 32), sizes.join())
  // Away for longer than a sync they come to no thirds, of which the disk would take fewer.
  const afar = await batchesOf(7)
  assert.ok(afar.reduce((sum, size) => sum + size, 0) / afar.length > 30, afar.join())
  const atOnce = await batchesOf(0)
  // With one actor nothing can be decided beside what is under way.
  const ofOne = await batchesOf(1, 1)
  assert.ok(
    ofOne.slice(2).every((size, place) => size === (place % 2 === 0 ? 17 : 47)),
    ofOne.join()
  )
  assert.ok(
    atOnce.slice(8).every((size) => size === 64),
    atOnce.join()
  )
})

test("a later time never stands before an earlier one, whichever batch is decided first", async () => {
  // Every look at the clock is a millisecond later, and fibers are paused wherever they may be.
  let nowMs = 0
  const tick = () => ++nowMs
  const nanos = () => BigInt(nowMs) * 1_000_000n
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: tick,
    currentTimeMillis: Effect.sync(tick),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: () => Effect.never
  }
  for (let operations = 3; operations < 30; operations++) {
    const world = new World({}, (effect) =>
      effect.pipe(
        Effect.provideService(Clock.Clock, clock),
        Effect.provideService(Scheduler.MaxOpsBeforeYield, operations)
      )
    )
    await world.start()
    const began = nowMs
    for (let round = 0; round < 4; round++) {
      const commands = Array.from({ length: 40 }, (_, n) => {
        const command = world.command(`lamp/l${round}-${n}`, light(), `${round}.${n}`)
        return Effect.andThen(
          Effect.forEach(Array.from({ length: (n * 7) % 23 }), () => Effect.yieldNow),
          command
        )
      })
      await world.run(Effect.all(commands, { concurrency: "unbounded" }))
    }
    const times = world.disk.facts.map(({ timeMs }) => timeMs)
    assert.ok(times.every((timeMs) => timeMs > began))
    assert.deepEqual(
      times,
      times.toSorted((x, y) => x - y),
      `${operations} operations at a time`
    )
    await world.close()
  }
})

test("a batch that fails takes nothing of the one beside it along", async () => {
  const world = await World.open()
  const release = holdAppends(world)
  const bad = world.run(Effect.result(world.command("lamp/a", light(), "1")))
  await world.pass(0)
  const good = world.run(Effect.result(world.command("lamp/b", light(), "2")))
  await world.pass(0)
  world.disk.fault = (operation) => (operation === "append" ? "the disk is full" : null)
  await release(0)
  assert.equal((await bad)._tag, "Failure")
  world.disk.fault = () => null
  await release(1)
  assert.equal((await good)._tag, "Success")
  assert.deepEqual([world.facts("lamp/a"), world.facts("lamp/b")], [[], ["lamp.lit"]])
  world.beforeAppend = Effect.void
  assert.equal((await world.run(world.command("lamp/a", light(), "3"))).revision, 0)
  await world.close()
})

test("time never goes back in the journal, also when the clock was set back before a start", async () => {
  const world = await World.open()
  await world.run(world.command("lamp/a", light(), "1"))
  const draft = { ...firstDraft(world), id: "later#0", causation: "later", timeMs: 1e12 }
  await world.run(world.store.append([{ stream: "lamp/a", expectedRevision: 0, facts: [draft] }]))
  await world.restart()
  await world.run(world.command("lamp/b", light(), "2"))
  const times = (await world.run(world.store.readAll({}))).map(({ timeMs }) => timeMs)
  assert.ok((times[0] ?? 1e12) < 1e12)
  assert.deepEqual(times.slice(1), [1e12, 1e12])
  await world.close()
})

test("after a conflict the actor is loaded and decides again", async () => {
  const world = await World.open()
  await world.run(world.command("lamp/a", light(), "1"))
  const draft = firstDraft(world)
  let meddled = 0
  world.beforeAppend = Effect.suspend(() => {
    if (meddled++ > 0) return Effect.void
    const other = { ...draft, id: "other#0", causation: "other" }
    world.beforeAppend = Effect.void
    return Effect.orDie(world.store.append([{ stream: "lamp/a", expectedRevision: 0, facts: [other] }]))
  })
  const accepted = await world.run(world.command("lamp/a", light(), "2"))
  assert.equal(accepted.revision, 2)
  assert.equal(world.context("lamp/a")?.lit, 3)
  await world.close()
})

test("an actor that changes again and again ends in the conflict, five attempts later", async () => {
  const world = await World.open()
  await world.run(world.command("lamp/a", light(), "1"))
  const draft = firstDraft(world)
  const before = world.appends.length
  let n = 0
  const meddle: Effect.Effect<void> = Effect.suspend(() => {
    const other = { ...draft, id: `other${n}#0`, causation: `other${n}` }
    const batch = [{ stream: "lamp/a", expectedRevision: n++, facts: [other] }]
    world.beforeAppend = Effect.void
    return Effect.andThen(
      Effect.orDie(world.store.append(batch)),
      Effect.sync(() => (world.beforeAppend = meddle))
    )
  })
  world.beforeAppend = meddle
  const result = await world.run(Effect.result(world.command("lamp/a", light(), "2")))
  assert.ok(Result.isFailure(result))
  assert.equal(result.failure._tag, "RevisionConflict")
  assert.equal((world.appends.length - before) / 2, 5)
  assert.ok(!world.disk.facts.some(({ causation }) => causation === "2"))
  await world.close()
})

test("when nothing can be appended all callers are told, nothing is visible, and the next one succeeds", async () => {
  const world = await World.open()
  await world.run(world.command("lamp/a", light(), "1"))
  const before = serialize(world.kernel.resident().get("lamp/a")!)
  world.disk.fault = (operation) => (operation === "append" ? "the disk is full" : null)
  const results = await world.run(
    Effect.all(
      ["lamp/a", "lamp/b"].map((stream) => Effect.result(world.command(stream, light(), "2"))),
      { concurrency: "unbounded" }
    )
  )
  for (const result of results) {
    assert.ok(Result.isFailure(result))
    assert.equal(result.failure._tag, "StoreFailure")
    assert.match(result.failure.message, /the disk is full/)
  }
  assert.equal(serialize(world.kernel.resident().get("lamp/a")!), before)
  world.disk.fault = () => null
  assert.equal((await world.run(world.command("lamp/a", light(), "2"))).revision, 1)
  await world.close()
})

test("a full line turns commands away and says so; what stood in it is answered", async () => {
  const world = await World.open({ waiting_max: 3 })
  const results = await world.run(
    Effect.all(
      Array.from({ length: 5 }, (_, n) => Effect.result(world.command(`lamp/l${n}`, light(), `${n}`))),
      { concurrency: "unbounded" }
    )
  )
  const failures = results.filter(Result.isFailure)
  assert.equal(failures.length, 2)
  for (const { failure } of failures) {
    assert.equal(failure._tag, "Overloaded")
    assert.match(failure.message, /3 inputs wait already, 3 at most/)
  }
  await world.close()
})

test("a refusal names the state and what is allowed or missing, and leaves nothing behind", async () => {
  const world = await World.open()
  const refused = await world.run(Effect.flip(world.command("lamp/a", { type: "lamp.leave" }, "1")))
  assert.match(
    refused.message,
    /lamp\/a is dark: lamp.leave is refused; allowed now: lamp.switch, lamp.look, lamp.break/
  )
  const unknown = await world.run(Effect.flip(world.command("torch/a", look, "1")))
  assert.match(unknown.message, /torch\/a is no actor; kinds: lamp/)
  for (let n = 0; n < 100; n++)
    await world.run(Effect.flip(world.command(`lamp/made-up-${n}`, { type: "lamp.leave" }, "1")))
  assert.equal(world.kernel.resident().size, 0, "names that only were refused stay in memory")
  assert.equal(world.disk.facts.length, 0)
  await world.close()
})

test("a timer fires at its time, also over a restart; a new one takes its place, a stop takes it back", async () => {
  const world = await World.open()
  await world.run(world.command("lamp/a", light(1000), "1"))
  await world.pass(600)
  await world.run(world.command("lamp/a", light(1000), "2"))
  await world.pass(600)
  assert.equal(world.state("lamp/a"), "lit", "the first timer fired though a new one took its place")
  await world.restart()
  await world.pass(300)
  assert.equal(world.state("lamp/a"), "lit")
  await world.pass(200)
  assert.equal(world.state("lamp/a"), "dark")
  assert.equal(world.facts("lamp/a").filter((type) => type === "lamp.darkened").length, 1)
  await world.run(world.command("lamp/a", light(1000), "3"))
  await world.run(world.command("lamp/a", { type: "lamp.leave" }, "4"))
  await world.pass(5000)
  assert.equal(world.state("lamp/a"), "lit")
  await world.close()
})

test("a command that was accepted before is recognised, before and after a restart", async () => {
  const world = await World.open()
  const first = await world.run(world.command("lamp/a", light(), "1"))
  const again = await world.run(world.command("lamp/a", light(), "1"))
  assert.deepEqual([again.duplicate, again.position], [true, first.position])
  await world.restart()
  const later = await world.run(world.command("lamp/a", light(), "1"))
  assert.deepEqual([later.duplicate, later.position], [true, first.position])
  assert.equal(world.facts("lamp/a").filter((type) => type === "lamp.lit").length, 1)
  await world.close()
})

test("nothing is asked of a port before its fact is durable, and nothing when that fails", async () => {
  const world = await World.open()
  await world.run(world.command("lamp/a", look, "1"))
  await world.pass(10)
  assert.deepEqual(world.asked, [{ key: "lamp/a@0#0", durable: 1 }])
  world.disk.fault = (operation) => (operation === "append" ? "the disk is full" : null)
  await world.run(Effect.flip(world.command("lamp/b", look, "1")))
  await world.pass(10)
  assert.equal(world.asked.length, 1)
  await world.close()
})

test("after a crash what is outstanding is asked again under the same key, and only that", async () => {
  const world = await World.open()
  world.perform = () => Stream.never
  await world.run(world.command("lamp/a", look, "1"))
  await world.pass(10)
  world.perform = () => Stream.make({ type: "hypervisor.observed", state: "paused" } as const)
  await world.restart()
  await world.pass(10)
  assert.deepEqual(
    world.asked.map(({ key }) => key),
    ["lamp/a@0#0", "lamp/a@0#0"]
  )
  assert.deepEqual(world.facts("lamp/a"), ["lamp.looked", "lamp.seen"])
  await world.restart()
  await world.pass(10)
  assert.equal(world.asked.length, 2)
  await world.close()
})

test("a host out of reach is asked again until its time is over, and then the answer is that it is lost", async () => {
  const world = await World.open({ unreachableMs: 5000 })
  world.perform = () => Stream.fail(new AgentUnreachable({ host: "h", reason: "no link" }))
  await world.run(world.command("lamp/a", look, "1"))
  for (let ms = 0; ms < 4900; ms += 100) await world.pass(100)
  assert.deepEqual(world.facts("lamp/a"), ["lamp.looked"])
  for (let ms = 0; ms < 3000; ms += 100) await world.pass(100)
  assert.deepEqual(world.facts("lamp/a"), ["lamp.looked", "lamp.seen"])
  assert.equal(world.context("lamp/a")?.seen, "lost")
  await world.close()
})

test("a bug in one turn is its caller's alone", async () => {
  const world = await World.open()
  const [bad, good] = await world.run(
    Effect.all(
      [
        Effect.exit(world.command("lamp/a", { type: "lamp.break" }, "1")),
        Effect.exit(world.command("lamp/b", light(), "1"))
      ],
      { concurrency: "unbounded" }
    )
  )
  assert.ok(Exit.isFailure(bad) && /a bug in the chart/.test(String(bad.cause)))
  assert.ok(Exit.isSuccess(good))
  assert.equal(world.appends.length, 1)
  await world.close()
})
