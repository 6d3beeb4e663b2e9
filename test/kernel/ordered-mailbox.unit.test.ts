/** What a group has ordered, applied: all nodes come to the same journal, whenever each began, and callers hear of their own. */
import assert from "node:assert/strict"
import { after, test } from "node:test"
import { setImmediate as immediate, setTimeout as sleep } from "node:timers/promises"
import { Effect, Exit, Fiber, References, Scope } from "effect"
import * as digest from "../../simulations/world/digest.ts"
import { memoryDisk, openEventStore } from "../../simulations/world/event-store.ts"
import type { MemoryDisk } from "../../simulations/world/event-store.ts"
import type { Entry } from "../../src/events/raft.ts"
import { batchText, inputText, loadMark, markSnapshot, stampedText } from "../../src/kernel/ordered.ts"
import { makeOrderedMailbox } from "../../src/kernel/ordered-mailbox.ts"
import { Consensus, Unavailable } from "../../src/kernel/ports/consensus.ts"
import type { Follower, GroupStatus, Proposed } from "../../src/kernel/ports/consensus.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { resume } from "../../src/kernel/replay.ts"
import type { Input } from "../../src/kernel/turn.ts"
import { lamp } from "./lamp.ts"

const input = (name: string, id: string, type: string): Input => ({
  stream: `lamp/${name}`,
  message: type === "lamp.switch" ? { type, afterMs: 3_600_000 } : { type },
  id,
  correlation: id,
  principal: { kind: "operator", name: "alice" },
  answers: null
})

const entry = (index: number, term: number, timeMs: number, ...inputs: ReadonlyArray<Input>): Entry => ({
  index,
  term,
  data: stampedText(timeMs, batchText({ node: "n1", life: "l", number: index }, inputs.map(inputText))),
  members: null
})

const nobody = { voters: [], outgoing: [], learners: [], learnersNext: [] }

/** A node with its journal on this disk, which is told what is decided. */
class Node {
  readonly disk: MemoryDisk
  readonly proposed: Array<{ readonly data: string; readonly told: (proposed: Proposed) => void }> = []
  term = 1
  role: GroupStatus["role"] = "follower"
  /** What the leader says that a read has to have seen. */
  readable = 0
  waiting_max = 1000
  /** By whom its facts are given. */
  others = new Map<string, Node>()
  compacted = 0
  follower!: Follower
  ordered!: Effect.Success<ReturnType<typeof makeOrderedMailbox>>
  #scope = Scope.makeUnsafe()

  constructor(disk: MemoryDisk = memoryDisk()) {
    this.disk = disk
    nodes.push(this)
  }

  #order(): Consensus["Service"] {
    return Consensus.of({
      node: "n0",
      follow: (follower) => {
        this.follower = follower
      },
      propose: (data, told) => {
        this.proposed.push({ data, told })
        return this.term
      },
      readIndex: Effect.sync(() => this.readable),
      status: () => {
        const { term, role } = this
        return { node: "n0", role, term, leader: null, commit: 0, last: 0, base: 0, members: nobody }
      },
      leadsNow: () => false,
      change: () => Effect.void,
      factsAfter: (node, position, limit) => {
        const other = this.others.get(node)
        return other === undefined
          ? Effect.fail(new Unavailable({ node, mayHappen: false, reason: "not here" }))
          : Effect.promise(() => other.read(position, limit))
      },
      transfer: () => Effect.void,
      applied: (index) => {
        this.compacted = index
      },
      halt: () => {}
    })
  }

  run = <A, E>(work: Effect.Effect<A, E, Scope.Scope | EventStore>) =>
    Effect.runPromise(
      Effect.gen({ self: this }, function* () {
        const store = yield* openEventStore(this.disk)
        return yield* Effect.provideService(work, EventStore, store)
      }).pipe(
        Effect.provide(digest.layer),
        Effect.provideService(References.MinimumLogLevel, "None"),
        Scope.provide(this.#scope)
      )
    )

  async start(compactEvery = 1000): Promise<void> {
    this.ordered = await this.run(
      Effect.gen({ self: this }, function* () {
        const store = yield* EventStore
        const { actors } = yield* resume(store, [lamp])
        const { waiting_max } = this
        const own = { kinds: [lamp], node: "n0", residents: actors, waiting_max }
        const options = { ...own, compactEvery, patienceMs: 200 }
        return yield* Effect.provideService(
          makeOrderedMailbox({ ...options, leads: () => {} }),
          Consensus,
          this.#order()
        )
      })
    )
  }

  read = (position: number, limit: number) =>
    this.run(Effect.flatMap(EventStore, (store) => store.readAll({ from: position + 1, limit })))

  async decide(...entries: ReadonlyArray<Entry>): Promise<void> {
    this.follower.decided(entries)
    for (let turns = 0; turns < 50; turns++) await immediate()
  }

  async stop(): Promise<void> {
    await Effect.runPromise(Scope.close(this.#scope, Exit.void))
    this.#scope = Scope.makeUnsafe()
  }

  get journal() {
    return this.disk.facts.map(({ position, stream, timeMs, hash }) => ({ position, stream, timeMs, hash }))
  }

  /** One more command here: its answer. */
  submit = (one: Input) => Effect.runPromise(Effect.exit(this.ordered.mailbox.submit(one)))
}

const life = [
  entry(2, 1, 500, input("a", "1", "lamp.switch"), input("b", "2", "lamp.switch")),
  // Refused, by a leader whose clock is ahead.
  entry(3, 1, 10_000, input("c", "3", "lamp.leave")),
  entry(4, 2, 900, input("a", "4", "lamp.switch")),
  // A command that is repeated is none, also beside others of its actor.
  entry(5, 2, 800, input("a", "1", "lamp.switch"), input("a", "5", "lamp.switch")),
  { index: 6, term: 3, data: null, members: null },
  entry(7, 3, 1000, input("b", "7", "lamp.switch"))
]

const nodes: Array<Node> = []
after(() => Promise.all(nodes.map((node) => node.stop())))

test("however many are taken together, and wherever a node began again, the journal is the same", async () => {
  const all = new Node()
  await all.start()
  await all.decide(...life)
  assert.deepEqual(
    all.journal.map(({ stream, timeMs }) => `${stream} ${timeMs}`),
    ["lamp/a 500", "lamp/b 500", "lamp/a 900", "lamp/a 900", "lamp/b 1000"]
  )
  for (let restart = 0; restart <= life.length; restart++) {
    for (const compactEvery of [1, 1000]) {
      const node = new Node()
      await node.start(compactEvery)
      for (const one of life.slice(0, restart)) await node.decide(one)
      await node.stop()
      await node.start(compactEvery)
      // The log hands over again what it has.
      await node.decide(...life)
      assert.deepEqual(node.journal, all.journal, `begun again before entry ${restart}, ${compactEvery}`)
      await node.stop()
    }
  }
  await all.stop()
})

test("the mark goes with the facts; what recorded nothing moves it when the log may forget", async () => {
  const node = new Node()
  await node.start()
  for (const one of life.slice(0, 2)) await node.decide(one)
  assert.equal((await node.run(Effect.flatMap(EventStore, loadMark))).index, 2)
  await node.stop()
  await node.start(1)
  await node.decide(...life.slice(1, 2))
  assert.equal((await node.run(Effect.flatMap(EventStore, loadMark))).index, 3)
  assert.equal(node.compacted, 3)
  await node.stop()
})

test("who offered is answered by what was decided; a lost place is offered again, and silence is told", async () => {
  const node = new Node()
  await node.start()
  const first = node.submit(input("a", "1", "lamp.switch"))
  for (let turns = 0; turns < 20; turns++) await immediate()
  assert.equal(node.proposed.length, 1)
  node.proposed[0]?.told({ outcome: "placed", index: 2, term: 1 })
  // Another leader's entry stands there now.
  node.term = 2
  await node.decide({ index: 2, term: 2, data: null, members: null })
  for (let waited = 0; node.proposed.length < 2 && waited < 200; waited++) await sleep(5)
  assert.equal(node.proposed.length, 2)
  await node.decide({
    index: 3,
    term: 2,
    data: stampedText(700, node.proposed[1]?.data ?? ""),
    members: null
  })
  const answer = await first
  assert.ok(Exit.isSuccess(answer))
  assert.equal(answer.value.position, 1)
  assert.equal(answer.value.facts[0]?.timeMs, 700)
  const never = await node.submit(input("a", "2", "lamp.switch"))
  assert.match(String(never), /it may have taken effect; send it again under the same key/)
  await node.stop()
})

const turns = async (count: number) => {
  for (let turn = 0; turn < count; turn++) await immediate()
}

/** Another leader leads: what was proposed before has lost its place, and is offered again after a pause. */
async function losesItsPlace(node: Node, index: number): Promise<void> {
  node.term++
  await node.decide({ index, term: node.term, data: null, members: null })
}

async function proposes(node: Node, count: number): Promise<void> {
  for (let waited = 0; node.proposed.length < count && waited < 200; waited++) await sleep(5)
  assert.equal(node.proposed.length, count)
}

test("a client that leaves takes what is not placed with it", async () => {
  const node = new Node()
  await node.start()
  const told: Array<string> = []
  const caller = { isGone: false }
  node.ordered.mailbox.offer(input("a", "1", "lamp.switch"), (exit) => told.push(String(exit)), caller)
  await proposes(node, 1)
  node.proposed[0]?.told({ outcome: "declined", reason: "no leader is known" })
  caller.isGone = true
  const other = node.submit(input("b", "2", "lamp.switch"))
  await proposes(node, 2)
  assert.doesNotMatch(node.proposed[1]?.data ?? "", /lamp\/a/)
  assert.match(told.join(), /who asked is gone/)
  await node.decide({ index: 2, term: 1, data: stampedText(1, node.proposed[1]?.data ?? ""), members: null })
  assert.ok(Exit.isSuccess(await other))
  assert.deepEqual(
    node.journal.map(({ stream }) => stream),
    ["lamp/b"]
  )
  await node.stop()
})

test("a caller that is interrupted has left", async () => {
  const node = new Node()
  await node.start()
  const fiber = Effect.runFork(node.ordered.mailbox.submit(input("a", "1", "lamp.switch")))
  await proposes(node, 1)
  await Effect.runPromise(Fiber.interrupt(fiber))
  await losesItsPlace(node, 2)
  await sleep(60)
  assert.equal(node.proposed.length, 1, "it is not proposed again")
  assert.equal(node.ordered.mailbox.waiting(), 0)
  await node.stop()
})

test("what another node had placed meanwhile answers the same command here, which is not placed behind it", async () => {
  const node = new Node()
  await node.start()
  const refused = node.submit(input("a", "1", "lamp.leave"))
  await proposes(node, 1)
  node.proposed[0]?.told({ outcome: "declined", reason: "no leader is known" })
  // Refused by way of another node, before this one tries again.
  await node.decide(entry(2, 1, 500, input("a", "1", "lamp.leave")))
  assert.match(String(await refused), /CommandRefused/)
  await sleep(60)
  assert.equal(node.proposed.length, 1)
  await node.stop()
})

test("a refusal is not the last word while a copy is under way again", async () => {
  const node = new Node()
  await node.start()
  const first = node.submit(input("a", "1", "lamp.leave"))
  await proposes(node, 1)
  await losesItsPlace(node, 2)
  await proposes(node, 2)
  // The client asks once more, and this copy is decided first.
  const second = node.submit(input("a", "1", "lamp.leave"))
  await proposes(node, 3)
  const text = (at: number) => stampedText(1, node.proposed[at]?.data ?? "")
  await node.decide({ index: 3, term: node.term, data: text(2), members: null })
  assert.match(String(await second), /Unavailable[^]*an earlier try of it is still under way/)
  // The copy loses its place once more: it is answered by what is known, and proposed no more.
  await losesItsPlace(node, 4)
  assert.match(String(await first), /CommandRefused/)
  await sleep(60)
  assert.equal(node.proposed.length, 3)
  await node.stop()
})

test("a refusal is not the last word while nobody knows what became of a later try (seed 157)", async () => {
  const node = new Node()
  await node.start()
  const first = node.submit(input("a", "1", "lamp.leave"))
  await proposes(node, 1)
  await losesItsPlace(node, 2)
  await proposes(node, 2)
  // An earlier try had a place all the same, and was refused there; whether the later one has is not known.
  await node.decide(entry(3, node.term, 500, input("a", "1", "lamp.leave")))
  node.proposed[1]?.told({ outcome: "unknown", reason: "the leader can't be heard any more" })
  await proposes(node, 3)
  const text = stampedText(1, node.proposed[2]?.data ?? "")
  await node.decide({ index: 4, term: node.term, data: text, members: null })
  assert.match(String(await first), /CommandRefused/)
  await node.stop()
})

/** Of what was offered nobody knows what became of two proposals. */
async function isOpenTwice(node: Node): Promise<void> {
  for (const at of [0, 1]) {
    await proposes(node, at + 1)
    node.proposed[at]?.told({ outcome: "unknown", reason: "the leader can't be heard any more" })
  }
}

test("a refusal is not the last word while a later try of what waits to be placed again is open", async () => {
  const node = new Node()
  await node.start()
  const first = node.submit(input("a", "1", "lamp.leave"))
  const text = (at: number) => stampedText(1, node.proposed[at]?.data ?? "")
  await isOpenTwice(node)
  // The earlier of the two is decided, and what was refused there may be accepted when the later one is.
  await node.decide({ index: 2, term: 1, data: text(0), members: null })
  await proposes(node, 3)
  node.proposed[2]?.told({ outcome: "declined", reason: "no leader is known" })
  await node.decide(
    entry(3, 1, 500, input("a", "2", "lamp.switch")),
    { index: 4, term: 1, data: text(1), members: null },
    // Another node's says nothing of what is open here.
    entry(5, 1, 500, input("a", "1", "lamp.leave"))
  )
  const answer = await first
  assert.ok(Exit.isSuccess(answer), String(answer))
  assert.equal(answer.value.position, 2)
  await node.stop()
})

test("where the last try that is open was refused, nothing is open, and it is told", async () => {
  const node = new Node()
  await node.start()
  const first = node.submit(input("a", "1", "lamp.leave"))
  await isOpenTwice(node)
  // By another node: of the two that are open here it says nothing.
  await node.decide(entry(2, 1, 500, input("a", "1", "lamp.leave")))
  await proposes(node, 3)
  node.proposed[2]?.told({ outcome: "declined", reason: "no leader is known" })
  const text = stampedText(1, node.proposed[1]?.data ?? "")
  await node.decide({ index: 3, term: 1, data: text, members: null })
  assert.match(String(await first), /CommandRefused/)
  await sleep(60)
  assert.equal(node.proposed.length, 3)
  await node.stop()
})

test("a read waits until what was decided before it is applied, and not for ever where that never comes (seed 500044)", async () => {
  const node = new Node()
  await node.start()
  node.readable = 1
  const read = () => Effect.runPromise(Effect.result(node.ordered.fresh))
  const early = read()
  await node.decide(entry(1, 1, 1000, input("a", "1", "lamp.switch")))
  assert.equal((await early)._tag, "Success")
  // It was removed after it had asked: what was decided later reaches it no more.
  node.readable = 5
  const never = await read()
  assert.ok(never._tag === "Failure" && never.failure._tag === "Unavailable")
  assert.match(never.failure.reason, /it has applied 1, and 5 is needed, for 200 ms/)
  assert.equal(never.failure.mayHappen, false)
})

test("what actors say is placed by the node that leads, and forwarded by none", async () => {
  const node = new Node()
  await node.start()
  const said: Input = {
    ...input("a", "1", "lamp.switch"),
    principal: { kind: "actor", name: "lamp/b" }
  }
  const answer = String(await node.submit(said))
  assert.match(answer, /only who leads speaks for actors; nothing was done/)
  assert.equal(node.proposed.length, 0)
  node.role = "leader"
  node.follower.leads(true)
  await turns(20)
  const placed = node.submit(said)
  await proposes(node, 1)
  await node.decide({ index: 2, term: 1, data: stampedText(5, node.proposed[0]?.data ?? ""), members: null })
  assert.ok(Exit.isSuccess(await placed))
  // It leads again, in a later term, and the kernel of before has not ended yet: what that one said is not placed behind what the
  // next one says in its place (seeds 1284 and 20581).
  const left = node.submit({ ...said, id: "2" })
  await proposes(node, 2)
  node.proposed[1]?.told({ outcome: "declined", reason: "not-leader" })
  node.term = 2
  assert.match(String(await left), /only who leads speaks for actors/)
  assert.match(String(await node.submit({ ...said, id: "3" })), /only who leads speaks for actors/)
  assert.equal(node.proposed.length, 2)
  node.follower.leads(false)
  node.follower.leads(true)
  await turns(20)
  void node.submit({ ...said, id: "2" })
  await proposes(node, 3)
  await node.stop()
})

test("what is proposed and not decided counts at the door, too", async () => {
  const node = new Node()
  node.waiting_max = 2
  await node.start()
  const first = [node.submit(input("a", "1", "lamp.switch")), node.submit(input("a", "2", "lamp.switch"))]
  await proposes(node, 1)
  assert.match(String(await node.submit(input("a", "3", "lamp.switch"))), /2 inputs wait already, 2 at most/)
  await node.stop()
  assert.equal(first.length, 2)
})

test("a journal that was being fetched when the process ended is fetched on from who offers it, when no member is known", async () => {
  const source = new Node()
  await source.start()
  await source.decide(...life)
  const state = source.follower.snapshot()?.state ?? ""
  const node = new Node()
  const installing = JSON.parse(state) as { index: number; term: number; position: number; hash: string }
  const mark = markSnapshot({ index: 0, term: 0, installing })
  await node.run(Effect.flatMap(EventStore, (store) => store.append([], mark)))
  node.others.set("n9", source)
  await node.start()
  await turns(20)
  assert.deepEqual(node.journal, [])
  const { index, term } = installing
  const done = new Promise<string | null>((resolve) => {
    node.follower.install("n9", { index, term, state }, resolve)
  })
  assert.equal(await done, null)
  assert.deepEqual(node.journal, source.journal)
  await node.stop()
  await source.stop()
})
