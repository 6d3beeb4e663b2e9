import assert from "node:assert/strict"
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { test } from "node:test"
import type { TestContext } from "node:test"
import { Effect, Fiber } from "effect"
import { assert as check, asyncProperty, integer } from "fast-check"
import { memoryDisk } from "../../simulations/world/event-store.ts"
import { StoreFailure } from "../../src/kernel/ports/event-store.ts"
import { inventory } from "../../src/projections/inventory.ts"
import type { Inventory, VmRow } from "../../src/projections/inventory.ts"
import type { AnyProjection, Projection } from "../../src/projections/projection.ts"
import { Table } from "../../src/projections/table.ts"
import type { RowChange } from "../../src/projections/table.ts"
import { histories, spec } from "../projections/facts.ts"
import type { Said } from "../projections/facts.ts"
import { folded, say, served, withProjector } from "./projector-world.ts"

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "novacron-views-"))
  t.after(() => rmSync(path, { recursive: true }))
  return path
}

const create = (name: string): Said => [`vm/${name}`, { type: "vm.created", name, spec, start: false }]
const machines = (count: number, prefix = "v"): ReadonlyArray<Said> =>
  Array.from({ length: count }, (_, index) => create(`${prefix}${index}`))

test("what is appended is seen in order, and whoever waits for its position sees it", async () => {
  await withProjector(memoryDisk(), {}, ({ store, projector }) =>
    Effect.gen(function* () {
      yield* say(store, machines(700))
      yield* projector.caughtUp(700)
      assert.equal(projector.state(inventory).vms.size, 700)
      assert.deepEqual(served(projector), yield* folded(store))
      const waiting = yield* Effect.forkChild(projector.caughtUp(701, { projections: ["inventory"] }))
      yield* say(store, [create("last")])
      yield* Fiber.join(waiting)
      assert.ok(projector.state(inventory).vms.get("last"))
    })
  )
})

test("waiting for a position that does not come ends with what was reached", async () => {
  await withProjector(memoryDisk(), {}, ({ projector }) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(projector.caughtUp(5, { timeoutMs: 10 }))
      assert.equal(error._tag, "NotCaughtUp")
      assert.deepEqual([error.position, error.reached], [5, 0])
    })
  )
})

test("going on from a file at any point gives what a fold from the first fact gives", async (t) => {
  const seed = 20_260_201
  console.log(`seed ${seed}`)
  const root = folder(t)
  let run = 0
  const property = asyncProperty(
    histories(80),
    integer({ min: 0, max: 80 }),
    integer({ min: 1, max: 20 }),
    async (history, cut, checkpointEveryFacts) => {
      const disk = memoryDisk()
      const options = { path: join(root, `${run++}.db`), checkpointEveryFacts, batch_max: 7 }
      const part = (facts: ReadonlyArray<Said>) =>
        withProjector(disk, options, ({ store, projector }) =>
          Effect.gen(function* () {
            yield* say(store, facts)
            const head = yield* store.head
            yield* projector.caughtUp(head.position)
            assert.deepEqual(served(projector), yield* folded(store))
          })
        )
      await part(history.slice(0, cut))
      await part(history.slice(cut))
    }
  )
  await check(property, { seed, numRuns: 40 })
})

/** Read from a copy: the file is its projector's alone, and so is its log. */
function storedPosition(path: string, copy: string): number {
  for (const part of ["", "-wal"]) if (existsSync(path + part)) copyFileSync(path + part, copy + part)
  const file = new DatabaseSync(copy)
  const row = file.prepare("select max(position) as position from runs").get()
  file.close()
  return Number(row?.["position"] ?? 0)
}

test("changes are stored after some time, again and again", async (t) => {
  const root = folder(t)
  const path = join(root, "views.db")
  let copies = 0
  await withProjector(memoryDisk(), { path, checkpointEveryMs: 5 }, ({ store, projector }) =>
    Effect.gen(function* () {
      for (let position = 1; position <= 3; position++) {
        yield* say(store, [create(`v${position}`)])
        yield* projector.caughtUp(position)
        while (storedPosition(path, join(root, `copy-${copies++}.db`)) < position) yield* Effect.sleep(2)
      }
    })
  )
})

test("changes are stored when so many rows have changed, or after so many facts, and not before", async (t) => {
  const root = folder(t)
  const path = join(root, "views.db")
  const never = 1e9
  const options = {
    path,
    checkpointEveryMs: never,
    checkpointEveryRows: 5,
    checkpointEveryFacts: 20,
    projections: [inventory as AnyProjection]
  }
  await withProjector(memoryDisk(), options, ({ store, projector }) =>
    Effect.gen(function* () {
      const stored = Effect.fnUntraced(function* (facts: ReadonlyArray<Said>) {
        yield* say(store, facts)
        const { position } = yield* store.head
        yield* projector.caughtUp(position)
        yield* Effect.sleep(1)
        return storedPosition(path, join(root, `at-${position}.db`))
      })
      assert.equal(yield* stored(machines(4)), 0)
      assert.equal(yield* stored([create("fifth")]), 5)
      // One row again and again.
      const again: Said = ["vm/v0", { type: "vm.rebooted" }]
      assert.equal(yield* stored(Array.from({ length: 19 }, () => again)), 5)
      assert.equal(yield* stored([again]), 25)
    })
  )
})

test("views that could not be stored are tried again after as many changes, and then all of them are there", async (t) => {
  const root = folder(t)
  const path = join(root, "views.db")
  let isFull = true
  let attempts = 0
  class OnFullDisk extends Table<VmRow> {
    override *changes(): Generator<RowChange> {
      attempts++
      if (isFull) throw new StoreFailure({ operation: "save views", reason: "the disk is full" })
      yield* super.changes()
    }
  }
  const refused: Projection<Inventory> = {
    ...inventory,
    initial: () => ({ vms: new OnFullDisk(), hosts: new Table() })
  }
  const options = {
    path,
    checkpointEveryMs: 1e9,
    checkpointEveryRows: 5,
    projections: [refused as AnyProjection]
  }
  await withProjector(memoryDisk(), options, ({ store, projector, logged }) =>
    Effect.gen(function* () {
      const sayOneByOne = Effect.fnUntraced(function* (from: number, to: number) {
        for (let position = from; position <= to; position++) {
          yield* say(store, [create(`v${position}`)])
          yield* projector.caughtUp(position)
          yield* Effect.sleep(1)
        }
      })
      yield* sayOneByOne(1, 14)
      assert.equal(attempts, 2)
      assert.equal(logged.filter((line) => line.includes("the disk is full")).length, 2)
      isFull = false
      yield* sayOneByOne(15, 15)
      assert.equal(attempts, 3)
      assert.equal(storedPosition(path, join(root, "copy.db")), 15)
    })
  )
})

test("a restart goes on from the file and reads no fact again", async (t) => {
  const disk = memoryDisk()
  const path = join(folder(t), "views.db")
  await withProjector(disk, { path }, ({ store, projector }) =>
    Effect.andThen(say(store, machines(50)), projector.caughtUp(50))
  )
  const seen: Array<number> = []
  const counting: Projection<Inventory> = {
    ...inventory,
    apply: (state, fact) => {
      seen.push(fact.position)
      return inventory.apply(state, fact)
    }
  }
  await withProjector(disk, { path, projections: [counting as AnyProjection] }, ({ store, projector }) =>
    Effect.gen(function* () {
      assert.equal(projector.state(inventory).vms.size, 50)
      yield* say(store, [create("new")])
      yield* projector.caughtUp(51)
    })
  )
  assert.deepEqual(seen, [51])
})

const damages: ReadonlyArray<readonly [string, (path: string) => void]> = [
  ["overwritten", (path) => writeFileSync(path, "not a database at all ".repeat(1000))],
  [
    "changed in a row",
    (path) => {
      const database = new DatabaseSync(path)
      database.exec("UPDATE rows SET row = replace(row, 'stopped', 'running'), crc = crc + 1")
      database.close()
    }
  ],
  [
    "short of a row",
    (path) => {
      const database = new DatabaseSync(path)
      database.exec("DELETE FROM rows WHERE key = 'v7'")
      database.close()
    }
  ],
  [
    "torn in its pages",
    (path) => {
      const bytes = readFileSync(path)
      bytes.fill(0xff, 4096, bytes.length - 4096)
      writeFileSync(path, bytes)
    }
  ]
]

for (const [how, damage] of damages) {
  test(`a file that is ${how} is rebuilt, with a warning`, async (t) => {
    const disk = memoryDisk()
    const path = join(folder(t), "views.db")
    await withProjector(disk, { path }, ({ store, projector }) =>
      Effect.andThen(say(store, machines(60)), projector.caughtUp(60))
    )
    damage(path)
    await withProjector(disk, { path }, ({ store, projector, logged }) =>
      Effect.gen(function* () {
        yield* projector.caughtUp(60)
        assert.deepEqual(served(projector), yield* folded(store))
        assert.match(logged.join("\n"), /rebuilt/)
      })
    )
    await withProjector(disk, { path }, ({ store, projector, logged }) =>
      Effect.gen(function* () {
        yield* projector.caughtUp(60)
        assert.deepEqual(served(projector), yield* folded(store))
        assert.deepEqual(logged, [])
      })
    )
  })
}

test("a file that is ahead of the store, or of another store, is not believed", async (t) => {
  const path = join(folder(t), "views.db")
  await withProjector(memoryDisk(), { path }, ({ store, projector }) =>
    Effect.andThen(say(store, machines(40)), projector.caughtUp(40))
  )
  for (const count of [10, 45]) {
    await withProjector(memoryDisk(), { path }, ({ store, projector, logged }) =>
      Effect.gen(function* () {
        if (count === 10) assert.match(logged.join("\n"), /the event store only at 0/)
        yield* say(store, machines(count, "w"))
        yield* projector.caughtUp(count)
        assert.deepEqual(served(projector), yield* folded(store))
      })
    )
  }
  const other = memoryDisk()
  await withProjector(other, {}, ({ store }) => say(store, machines(60, "x")))
  await withProjector(other, { path }, ({ store, projector, logged }) =>
    Effect.gen(function* () {
      assert.match(logged.join("\n"), /another fact at position 45/)
      yield* projector.caughtUp(60)
      assert.deepEqual(served(projector), yield* folded(store))
    })
  )
})

test("while it is rebuilt a projection goes on serving and taking what is appended", async () => {
  await withProjector(memoryDisk(), { batch_max: 10 }, ({ store, projector }) =>
    Effect.gen(function* () {
      yield* say(store, machines(500))
      yield* projector.caughtUp(500)
      const before = projector.state(inventory)
      const rebuilding = yield* Effect.forkChild(projector.rebuild("inventory"))
      const joined = yield* Effect.forkChild(projector.rebuild("inventory"))
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      const during = (yield* projector.status).find((one) => one.projection === "inventory")
      assert.ok((during?.rebuildingPosition ?? 500) < 500)
      assert.equal(projector.state(inventory), before)
      yield* say(store, machines(20, "w"))
      yield* projector.caughtUp(520, { projections: ["inventory"] })
      assert.equal(projector.state(inventory).vms.size, 520)
      yield* Fiber.join(rebuilding)
      yield* Fiber.join(joined)
      assert.notEqual(projector.state(inventory), before)
      yield* say(store, [create("last")])
      yield* projector.caughtUp(521)
      assert.deepEqual(served(projector), yield* folded(store))
    })
  )
})

test("a new version is rebuilt; where it can go on from the older one, that serves meanwhile", async (t) => {
  const disk = memoryDisk()
  const path = join(folder(t), "views.db")
  await withProjector(disk, { path }, ({ store, projector }) =>
    Effect.andThen(say(store, machines(300)), projector.caughtUp(300))
  )
  const next: Projection<Inventory> = {
    ...inventory,
    version: inventory.version + 1,
    continues: [inventory.version]
  }
  const projections = [next as AnyProjection]
  await withProjector(disk, { path, projections, batch_max: 10 }, ({ store, projector }) =>
    Effect.gen(function* () {
      assert.equal(projector.state(next).vms.size, 300)
      const old = projector.state(next)
      yield* projector.rebuild("inventory")
      assert.notEqual(projector.state(next), old)
      assert.deepEqual(served(projector, projections), yield* folded(store, projections))
    })
  )
  const later = { ...next, version: inventory.version + 2, continues: [] } as AnyProjection
  await withProjector(disk, { path, projections: [later] }, ({ store, projector, logged }) =>
    Effect.gen(function* () {
      const change = `version ${later.version} after version ${next.version}`
      assert.ok(logged.join("\n").includes(change), logged.join("\n"))
      yield* projector.caughtUp(300)
      assert.deepEqual(served(projector, [later]), yield* folded(store, [later]))
    })
  )
})

test("a projection with a bug stops alone, says where, and its rebuild fails", async (t) => {
  const path = join(folder(t), "views.db")
  const broken = {
    ...inventory,
    name: "broken",
    apply: (state: Inventory, fact: Parameters<typeof inventory.apply>[1]) => {
      if (fact.position === 30) throw new Error("a bug")
      return inventory.apply(state, fact)
    }
  } as AnyProjection
  const projections = [inventory as AnyProjection, broken]
  await withProjector(memoryDisk(), { path, projections }, ({ store, projector, logged }) =>
    Effect.gen(function* () {
      yield* say(store, machines(60))
      yield* projector.caughtUp(60, { projections: ["inventory"] })
      const error = yield* Effect.flip(projector.caughtUp(60, { projections: ["broken"] }))
      assert.match(error.message, /at position 29, not 60: it stopped at position 30: a bug/)
      const status = (yield* projector.status).find((one) => one.projection === "broken")
      assert.deepEqual([status?.failed, status?.lagFacts], ["position 30: a bug", 31])
      const failed = yield* Effect.flip(projector.rebuild("broken"))
      assert.equal(failed._tag, "RebuildFailed")
      const unknown = yield* Effect.flip(projector.rebuild("nothing"))
      assert.equal(unknown._tag, "UnknownProjection")
      assert.ok(logged.length > 0)
    })
  )
})

test("a store that can't be read for a while only delays the views", async () => {
  const disk = memoryDisk()
  await withProjector(disk, {}, ({ store, projector, logged }) =>
    Effect.gen(function* () {
      disk.fault = (operation) => (operation === "subscribe" ? "the disk is away" : null)
      yield* say(store, machines(5))
      const error = yield* Effect.flip(projector.caughtUp(5, { timeoutMs: 20 }))
      assert.equal(error.reached, 0)
      disk.fault = () => null
      yield* projector.caughtUp(5)
      assert.match(logged.join("\n"), /the disk is away/)
      assert.deepEqual(served(projector), yield* folded(store))
    })
  )
})

test("a folder that can't be written is a failure that names the file", async (t) => {
  const path = join(folder(t), "file")
  writeFileSync(path, "")
  const opening = withProjector(memoryDisk(), { path: join(path, "views.db") }, () => Effect.void)
  await assert.rejects(opening, { _tag: "StoreFailure", reason: /views\.db/ })
  assert.ok(existsSync(path))
})
