/**
 * Commands per second at the kernel's door on SQLite with full durability, beside raw node:sqlite appends of the
 * very same rows in the same batch sizes; turns and replayed facts per second.
 */
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Layer, Stream } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import type { Recorded } from "../../src/events/envelope.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { Views } from "../../src/kernel/ports/views.ts"
import { replay } from "../../src/kernel/replay.ts"
import { emptyActor, takeTurn } from "../../src/kernel/turn.ts"
import * as liveDigest from "../../src/live/digest.ts"
import * as liveStore from "../../src/live/event-store.ts"
import { rawSeconds } from "./event-store.ts"

export const hostFacts = {
  cpus: 8,
  memoryMib: 16_384,
  diskMib: 100_000,
  driver: "bench",
  driverVersion: "1",
  accelerators: ["tcg"],
  machines: ["q35"],
  cpuModels: ["qemu64"],
  capabilities: [],
  labels: {}
}

export const quietAgents = Layer.succeed(Agents, { perform: () => Stream.empty })

const quiet = Layer.merge(
  quietAgents,
  Layer.succeed(Views, { hosts: (position) => Effect.succeed({ hosts: [], position }) })
)

const command = (host: number, n: number) => ({
  stream: `host/h${host}`,
  message: n % 2 === 0 ? { type: "host.drain", reason: "bench" } : { type: "host.activate" },
  id: `c${host}.${n}`,
  correlation: `c${host}.${n}`,
  principal: { kind: "operator" as const, name: "bench" }
})

/** `count` commands, `inFlight` at a time, each at a host of its own. Seconds, and the rows they made. */
const atTheDoor = (count: number, inFlight: number) =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const store = yield* EventStore
    for (let host = 0; host < inFlight; host++) {
      yield* kernel.submit({
        ...command(host, -1),
        message: { type: "host.register", address: "127.0.0.1:1", facts: hostFacts }
      })
    }
    const { position } = yield* store.head
    const began = performance.now()
    const one = (host: number) =>
      Effect.gen(function* () {
        for (let n = 0; n < count / inFlight; n++) yield* kernel.submit(command(host, n))
      })
    yield* Effect.all(
      Array.from({ length: inFlight }, (_, host) => one(host)),
      { concurrency: "unbounded", discard: true }
    )
    const seconds = (performance.now() - began) / 1000
    const rows: Array<Recorded> = []
    for (let from = position + 1; ;) {
      const page = yield* store.readAll({ from, limit: 1000 })
      rows.push(...page)
      if (page.length < 1000) break
      from = page.at(-1)!.position + 1
    }
    const replayBegan = performance.now()
    yield* replay(store, actorKinds, { snapshots: false })
    const replaySeconds = (performance.now() - replayBegan) / 1000
    return { seconds, rows, replayedPerSecond: (position + rows.length) / replaySeconds }
  })

function turnsPerSecond(count: number): number {
  const kind = actorKinds.find((one) => one.kind === "host")!
  const stamp = (n: number) => ({ ...command(0, n), answers: null })
  let actor = emptyActor(kind, "host/h0")
  const register = { type: "host.register", address: "x", facts: hostFacts }
  const first = takeTurn(kind, actor, { ...stamp(-1), message: register }, 1, "n")
  if (first.outcome === "record") actor = first.next
  const began = performance.now()
  for (let n = 0; n < count; n++) {
    const turn = takeTurn(kind, actor, stamp(n), n, "n")
    if (turn.outcome === "record") actor = turn.next
  }
  return count / ((performance.now() - began) / 1000)
}

export interface KernelResult {
  readonly inFlight: number
  readonly commands: number
  readonly commandsPerSecond: number
  readonly rawRowsPerSecond: number
  readonly share: number
  readonly replayedPerSecond: number
  /** Over types, streams and data of all rows: the same work gives the same hash. */
  readonly resultHash: string
}

export async function benchKernel(count: number, inFlight: number): Promise<KernelResult> {
  const folder = mkdtempSync(join(tmpdir(), "novacron-bench-"))
  try {
    const layer = Kernel.layer({
      kinds: actorKinds,
      node: "bench",
      checkpointEvery: Number.MAX_SAFE_INTEGER
    }).pipe(
      Layer.provideMerge(
        Layer.merge(
          quiet,
          liveStore.layer({ path: join(folder, "journal.db") }).pipe(Layer.provide(liveDigest.layer))
        )
      )
    )
    const { seconds, rows, replayedPerSecond } = await Effect.runPromise(
      Effect.scoped(Effect.provide(atTheDoor(count, inFlight), layer))
    )
    // The whole journal, into the store's own table with the store's own settings.
    const rawRows = rows.length + inFlight
    const rawRowsPerSecond =
      rawRows / rawSeconds(join(folder, "journal.db"), join(folder, "raw.db"), inFlight)
    const commandsPerSecond = count / seconds
    const hash = createHash("sha256")
    for (const row of [...rows].sort((a, b) => (a.id < b.id ? -1 : 1)))
      hash.update(`${row.stream} ${row.id} ${row.type} ${JSON.stringify(row.data)}\n`)
    return {
      inFlight,
      commands: count,
      commandsPerSecond,
      rawRowsPerSecond,
      share: commandsPerSecond / rawRowsPerSecond,
      replayedPerSecond,
      resultHash: hash.digest("hex").slice(0, 16)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

export { turnsPerSecond }
