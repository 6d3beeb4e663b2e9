/** A group of real nodes: one journal for all of them, whoever leads and whoever is asked. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect, Fiber, Layer, References } from "effect"
import type { Scope } from "effect"
import { markSnapshot } from "../../src/kernel/ordered.ts"
import { Unavailable } from "../../src/kernel/ports/consensus.ts"
import { serialize } from "../../src/kernel/turn.ts"
import { LiveNode, until } from "./group-nodes.ts"
import type { GroupNodeOptions } from "./group-nodes.ts"
import { newAuthority, scratchFolder } from "./link-nodes.ts"

const run = <A, E>(work: Effect.Effect<A, E, Scope.Scope>) =>
  Effect.runPromise(
    Effect.scoped(work).pipe(Effect.provide(Layer.succeed(References.MinimumLogLevel, "Warn" as const)))
  )

const command = (lamp: string, id: string, message: Record<string, unknown> & { type: string }) => ({
  stream: `lamp/${lamp}`,
  message,
  id,
  correlation: id,
  principal: { kind: "operator" as const, name: "alice" }
})
const lit = (lamp: string, id: string) => command(lamp, id, { type: "lamp.switch", afterMs: 3_600_000 })

/** A founder, and as many more as are asked for, which vote. */
const group = Effect.fnUntraced(function* (count: number, options: GroupNodeOptions = {}) {
  const ca = yield* newAuthority
  const folder = yield* scratchFolder
  const nodes: Array<LiveNode> = []
  yield* Effect.addFinalizer(() => Effect.forEach(nodes, (node) => node.stop(), { discard: true }))
  const founder = yield* LiveNode.make(ca, "n0", folder, options)
  nodes.push(founder)
  yield* founder.start()
  yield* until("the founder leads", () => founder.consensus.status().role === "leader")
  for (let at = 1; at < count; at++) {
    const node = yield* LiveNode.make(ca, `n${at}`, folder, { ...options, seeds: [founder.address] })
    nodes.push(node)
    yield* node.start()
    yield* join(nodes, node.name)
  }
  return nodes
})

/** As a voter, when it has what the others have. */
const join = Effect.fnUntraced(function* (nodes: ReadonlyArray<LiveNode>, name: string) {
  const ask = Effect.suspend(() => {
    const { consensus } = leaderOf(nodes) ?? (nodes[0] as LiveNode)
    const { members } = consensus.status()
    if (members.voters.includes(name) && members.outgoing.length === 0) return Effect.void
    const voters = members.learners.includes(name) ? [...members.voters, name] : members.voters
    return Effect.andThen(
      consensus.change(voters, [
        ...members.learners.filter((id) => id !== name),
        ...(voters.includes(name) ? [] : [name])
      ]),
      Effect.fail("not yet")
    )
  })
  yield* Effect.retry(Effect.delay(ask, 20), { times: 500 })
})

const leaderOf = (nodes: ReadonlyArray<LiveNode>) =>
  nodes.find((node) => node.isUp && node.consensus.status().role === "leader")

const heads = (nodes: ReadonlyArray<LiveNode>) =>
  Effect.forEach(nodes, (node) => Effect.orDie(node.store.head))

const equal = Effect.fnUntraced(function* (nodes: ReadonlyArray<LiveNode>) {
  for (let tries = 0; tries < 500; tries++) {
    const all = yield* heads(nodes)
    if (all.every(({ position }) => position === all[0]?.position)) {
      assert.deepEqual(
        all,
        all.map(() => all[0]),
        "one journal for all"
      )
      return all[0]?.position ?? 0
    }
    yield* Effect.sleep(10)
  }
  throw new Error(`journals stay different: ${JSON.stringify(yield* heads(nodes))}`)
})

test("who is asked does not matter: three nodes have one journal, and each answers its callers", () =>
  run(
    Effect.gen(function* () {
      const nodes = yield* group(3)
      const answers = yield* Effect.forEach(
        Array.from({ length: 60 }, (_, at) => at),
        (at) => (nodes[at % 3] as LiveNode).kernel.submit(lit(`l${at % 7}`, `c${at}`)),
        { concurrency: "unbounded" }
      )
      assert.equal(answers.length, 60)
      assert.equal(yield* equal(nodes), 60)
      // The same command at another node is the same command.
      const [one, other] = nodes as [LiveNode, LiveNode, LiveNode]
      const again = yield* other.kernel.submit(lit("l1", "c1"))
      assert.equal(again.duplicate, true)
      const refused = yield* Effect.flip(one.kernel.submit(command("new", "x", { type: "lamp.leave" })))
      assert.equal(refused._tag, "CommandRefused")
      assert.equal(yield* equal(nodes), 60)
      // What was asked anywhere is seen everywhere, by who waits for it.
      for (const node of nodes) {
        yield* node.kernel.fresh
        assert.equal((yield* node.kernel.state("lamp/l1")).revision, 8)
      }
      for (const node of nodes) yield* node.store.verify
    })
  ))

test("a leader that is gone is followed by another; one that comes back has what it missed", () =>
  run(
    Effect.gen(function* () {
      const nodes = yield* group(3)
      for (let round = 0; round < 3; round++) {
        const leader = leaderOf(nodes)
        assert.ok(leader)
        const others = nodes.filter((node) => node !== leader)
        const busy = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 40 }, (_, at) => at),
            (at) => (others[at % 2] as LiveNode).kernel.submit(lit(`l${at % 5}`, `r${round}-${at}`)),
            { concurrency: 8 }
          )
        )
        yield* Effect.sleep(5)
        yield* leader.stop()
        const answers = yield* Fiber.join(busy)
        assert.equal(answers.length, 40)
        yield* leader.start()
        assert.equal(yield* equal(nodes), (round + 1) * 40, "each took effect once")
      }
    })
  ))

test("a minority refuses, says why, and takes no effect", () =>
  run(
    Effect.gen(function* () {
      const nodes = yield* group(3, { patienceMs: 700 })
      const [one, two, three] = nodes as [LiveNode, LiveNode, LiveNode]
      yield* one.kernel.submit(lit("a", "1"))
      yield* two.stop()
      yield* three.stop()
      const refused = yield* Effect.flip(one.kernel.submit(lit("a", "2")))
      assert.ok(refused instanceof Unavailable)
      assert.match(refused.message, /^n0 can't order it now: .*send it again under the same key$/)
      const stale = yield* Effect.flip(Effect.timeout(one.kernel.fresh, 2000))
      assert.ok(stale instanceof Unavailable, "nobody can say that this is not old")
      yield* two.start()
      const again = yield* Effect.retry(one.kernel.submit(lit("a", "2")), { times: 10 })
      assert.equal(again.stream, "lamp/a")
      yield* three.start()
      assert.equal(yield* equal(nodes), 2)
    })
  ))

const compacting = { compactEvery: 20, keepEntries: 5, fileBytes_max: 4096 }

test("a client that gives up while nobody can order takes its command with it; one that stays has it done", () =>
  run(
    Effect.gen(function* () {
      const nodes = yield* group(3)
      const [one, two, three] = nodes as [LiveNode, LiveNode, LiveNode]
      yield* one.kernel.submit(lit("a", "1"))
      yield* two.stop()
      yield* three.stop()
      yield* until("nobody leads", () => one.consensus.status().role !== "leader")
      const leaves = yield* Effect.forkChild(one.kernel.submit(lit("left", "2")))
      const stays = yield* Effect.forkChild(one.kernel.submit(lit("stayed", "3")))
      yield* Effect.sleep(50)
      yield* Fiber.interrupt(leaves)
      yield* two.start()
      yield* three.start()
      assert.equal((yield* Fiber.join(stays)).duplicate, false)
      yield* two.kernel.submit(lit("a", "4"))
      yield* Effect.sleep(200)
      assert.equal(yield* equal(nodes), 3)
      assert.equal((yield* one.kernel.state("lamp/left")).revision, -1)
      // Its key is as new.
      assert.equal((yield* three.kernel.submit(lit("left", "2"))).duplicate, false)
    })
  ))

test("who was away for longer than the log remembers fetches the journal, and goes on with that after a crash", () =>
  run(
    Effect.gen(function* () {
      const nodes = yield* group(3, compacting)
      const [one, two, three] = nodes as [LiveNode, LiveNode, LiveNode]
      yield* three.stop()
      for (let at = 0; at < 300; at++) yield* one.kernel.submit(lit(`l${at % 9}`, `c${at}`))
      const { base, last } = one.consensus.status()
      assert.ok(base > 200, `the log forgets: it begins behind ${base} of ${last}`)
      yield* three.start()
      assert.equal(yield* equal(nodes), 300)
      yield* until("its log begins where the snapshot was", () => three.consensus.status().base > 200)
      // As if it had been killed when half of the facts were there: at no entry at all, until all of them are.
      yield* three.stop()
      for (let at = 300; at < 600; at++) yield* two.kernel.submit(lit(`l${at % 9}`, `c${at}`))
      const head = yield* one.store.head
      const target = { index: one.consensus.status().commit, term: one.consensus.status().term, ...head }
      yield* three.withStore((store) =>
        Effect.gen(function* () {
          const missing = yield* one.store.readAll({ from: 301, limit: 100 })
          const appends = missing.map((fact) => ({
            stream: fact.stream,
            expectedRevision: fact.revision - 1,
            facts: [fact]
          }))
          yield* store.append(appends, markSnapshot({ index: 0, term: 0, installing: target }))
        })
      )
      yield* three.start()
      yield* one.kernel.submit(lit("l0", "after"))
      assert.equal(yield* equal(nodes), 601)
      for (const node of nodes) yield* node.store.verify
      const states = yield* Effect.forEach(nodes, (node) => node.kernel.state("lamp/l3"))
      for (const state of states) assert.equal(serialize(state), serialize(states[0] as (typeof states)[0]))
    })
  ))

test("a journal that is not the log's is refused at the start, with what is wrong", () =>
  run(
    Effect.gen(function* () {
      const nodes = yield* group(1, compacting)
      const [one] = nodes as [LiveNode]
      for (let at = 0; at < 60; at++) yield* one.kernel.submit(lit("l", `c${at}`))
      assert.ok(one.consensus.status().base > 20)
      yield* one.stop()
      one.loseJournal()
      const refused = yield* Effect.flip(one.start())
      assert.match(
        String(refused),
        /the log begins behind entry \d+, and the journal has entries up to 0 only/
      )
      yield* one.stop()
    })
  ))

test("a node whose disk refuses its log takes no part any more, and the others go on", () =>
  run(
    Effect.gen(function* () {
      const nodes = yield* group(3)
      const leader = leaderOf(nodes) as LiveNode
      const others = nodes.filter((node) => node !== leader)
      yield* leader.kernel.submit(lit("a", "1"))
      leader.refuseLog()
      const working = yield* Effect.forkChild((others[0] as LiveNode).kernel.submit(lit("a", "2")))
      const reason = yield* leader.directory.broken
      assert.match(reason, /nothing is kept any more: .*(EBADF|bad file descriptor)/)
      yield* Fiber.join(working)
      assert.notEqual(leaderOf(others), undefined)
      yield* leader.stop()
      yield* leader.start()
      assert.equal(yield* equal(nodes), 2)
    })
  ))

test("only who may vote, and is a member, is listened to", () =>
  run(
    Effect.gen(function* () {
      const nodes = yield* group(1)
      const [one] = nodes as [LiveNode]
      const agent = yield* one.strangerWith(false)
      assert.equal(yield* agent.isClosed, true, "a host's agent may not vote")
      const voter = yield* one.strangerWith(true)
      const before = one.consensus.status().term
      voter.say({
        kind: "raft",
        message: {
          type: "append",
          term: 99,
          previousIndex: 1,
          previousTerm: 1,
          entries: [],
          commit: 1,
          round: 1
        }
      })
      yield* Effect.sleep(100)
      assert.equal(one.consensus.status().term, before, "who is no member changes nothing")
      assert.equal(one.consensus.status().role, "leader")
      voter.sayBytes(Buffer.from("this is no message"))
      yield* until("it is cut off", () => voter.isOver())
    })
  ))
