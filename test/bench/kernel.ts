/**
 * Commands per second at the kernel's door on SQLite with full durability, beside raw node:sqlite appends of the
 * very same rows in the same batch sizes; and turns without a store.
 */
import { join } from "node:path"
import { Effect, Layer, Stream } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import { hostActor } from "../../src/actors/host/chart.ts"
import type { Recorded } from "../../src/events/envelope.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { emptyActor, serialize, takeTurn } from "../../src/kernel/turn.ts"
import * as liveDigest from "../../src/live/digest.ts"
import * as liveStore from "../../src/live/event-store.ts"
import { rawRowsPerSecond, yardstickName } from "./event-store.ts"
import { figure, hashOf, inFolder, repeat } from "./measure.ts"
import type { Figure, Options, Round } from "./measure.ts"
import { noViews } from "../kernel/views.ts"

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

/** Ports of which nothing is asked here. */
export const quietAgents = Layer.succeed(Agents, { perform: () => Stream.empty })

const quiet = Layer.merge(quietAgents, noViews)

export const registerHost = (host: number, seed: number) => ({
  ...command(host, -1, seed),
  message: { type: "host.register", address: "127.0.0.1:1", facts: hostFacts }
})

const command = (host: number, n: number, seed: number) => ({
  stream: `host/h${host}`,
  message: n % 2 === 0 ? { type: "host.drain", reason: `bench ${seed}` } : { type: "host.activate" },
  id: `c${seed}.${host}.${n}`,
  correlation: `c${seed}.${host}.${n}`,
  principal: { kind: "operator" as const, name: "bench" }
})

/** `count` commands, `inFlight` at a time, each at a host of its own. Seconds, and the rows they made. */
const atTheDoor = (count: number, inFlight: number, seed: number) =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const store = yield* EventStore
    for (let host = 0; host < inFlight; host++) yield* kernel.submit(registerHost(host, seed))
    const { position } = yield* store.head
    const beganMs = performance.now()
    const one = (host: number) =>
      Effect.gen(function* () {
        for (let n = 0; n < count / inFlight; n++) yield* kernel.submit(command(host, n, seed))
      })
    yield* Effect.all(
      Array.from({ length: inFlight }, (_, host) => one(host)),
      { concurrency: "unbounded", discard: true }
    )
    const seconds = (performance.now() - beganMs) / 1000
    const rows: Array<Recorded> = []
    for (let from = position + 1; ;) {
      const page = yield* store.readAll({ from, limit: 1000 })
      rows.push(...page)
      if (page.length < 1000) break
      from = page.at(-1)!.position + 1
    }
    return { seconds, rows }
  })

const round = (count: number, inFlight: number, seed: number): Promise<Round> =>
  inFolder(async (folder) => {
    const path = join(folder, "journal.db")
    const store = liveStore.layer({ path }).pipe(Layer.provide(liveDigest.layer))
    const layer = Kernel.layer({
      kinds: actorKinds,
      node: "bench",
      checkpointEvery: Number.MAX_SAFE_INTEGER
    }).pipe(Layer.provideMerge(Layer.merge(quiet, store)))
    const { seconds, rows } = await Effect.runPromise(
      Effect.scoped(Effect.provide(atTheDoor(count, inFlight, seed), layer))
    )
    const yardstick = rawRowsPerSecond(path, join(folder, "raw.db"), inFlight)
    const lines = rows.map((row) => `${row.id} ${row.stream} ${row.type} ${JSON.stringify(row.data)}`)
    return { value: count / seconds, yardstick, result: hashOf(lines.sort()) }
  })

const sizes = {
  smoke: { warmUp: 64, singles: [100], sixtyFours: [1280], rounds: 1 },
  // A node runs for months: what is measured is not how V8 learns the code.
  full: { warmUp: 102_400, singles: [200, 2000, 20_000], sixtyFours: [2048, 20_480, 204_800], rounds: 5 }
} as const

export async function* kernelDoor({ size, seed }: Options): AsyncGenerator<Figure> {
  const { warmUp, singles, sixtyFours, rounds } = sizes[size]
  await round(warmUp, 64, seed)
  const runs = [
    ...singles.map((count) => [count, 1] as const),
    ...sixtyFours.map((count) => [count, 64] as const)
  ]
  for (const [count, inFlight] of runs) {
    const measured = await repeat(rounds, () => round(count, inFlight, seed))
    yield figure(`${inFlight} in flight, ${count} commands`, "commands/s", measured, {
      yardstick: yardstickName
    })
  }
}

function turnsOf(count: number, seed: number): Round {
  const stamp = (n: number) => ({ ...command(0, n, seed), answers: null })
  let actor = emptyActor(hostActor, "host/h0")
  const first = takeTurn(hostActor, actor, { ...registerHost(0, seed), answers: null }, 1, "n")
  if (first.outcome === "record") actor = first.next
  const beganMs = performance.now()
  for (let n = 0; n < count; n++) {
    const turn = takeTurn(hostActor, actor, stamp(n), n, "n")
    if (turn.outcome === "record") actor = turn.next
  }
  const value = (count / (performance.now() - beganMs)) * 1000
  return { value, result: hashOf([serialize(actor)]) }
}

export async function* turns({ size, seed }: Options): AsyncGenerator<Figure> {
  const counts = size === "smoke" ? [2000] : [4000, 40_000, 400_000]
  for (const count of counts) {
    const measured = await repeat(size === "smoke" ? 1 : 5, () => turnsOf(count, seed))
    yield figure(`a host actor, ${count} turns`, "turns/s", measured)
  }
}
