/**
 * Many VM actors in memory: bytes of each, and how long a node takes to have them all again, from every fact and from a
 * checkpoint. Run in a process of its own with `--expose-gc`: `node --expose-gc actors.ts <actors>`; one line of JSON.
 */
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { Effect, Layer, Schema } from "effect"
import { actorKinds } from "../../src/actors/kinds.ts"
import { typePrefix } from "../../src/events/envelope.ts"
import type { Draft, Message } from "../../src/events/envelope.ts"
import { VmSpec } from "../../src/events/vm.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import type { StreamAppend } from "../../src/kernel/ports/event-store.ts"
import { replay, saveCheckpoint } from "../../src/kernel/replay.ts"
import { serialize } from "../../src/kernel/turn.ts"
import * as digest from "../../src/live/digest.ts"
import * as eventStore from "../../src/live/event-store.ts"

export interface ActorsResult {
  readonly actors: number
  readonly facts: number
  readonly bytesEach: number
  readonly replaySeconds: number
  readonly checkpointSeconds: number
  /** A sum over all states: equal work gives equal results. */
  readonly result: number
}

const spec = Schema.decodeUnknownSync(VmSpec)({ disks: [{ name: "root", sizeMib: 10_240 }] })

/** A machine that was made, placed and started. */
const life = (n: number): ReadonlyArray<Message> => [
  { type: "vm.created", name: `web-${n}`, spec, start: true },
  { type: "vm.placed", host: `host-${n % 1000}`, decision: `web-${n}.1` },
  { type: "vm.defined" },
  { type: "vm.startRequested", automatic: false },
  { type: "vm.started", accelerator: "kvm" }
]

const draft = (n: number, index: number, { type, ...data }: Message): Draft => ({
  id: `c${n}.${index}#0`,
  type: typePrefix + type,
  version: 1,
  timeMs: 1_760_000_000_000 + n,
  correlation: `c${n}`,
  causation: `c${n}.${index}`,
  principal: { kind: "operator", name: "bench" },
  node: "bench",
  // Each of the actor's requests is answered by the fact after the next, as in a life that is at rest.
  answers: index === 0 ? null : `vm/web-${n}@${[0, 0, 1, 2, 3][index]}#0`,
  data
})

/** Append the facts of so many machines to the store. */
export const fill = Effect.fnUntraced(function* (actors: number) {
  const store = yield* EventStore
  const together = 500
  for (let first = 0; first < actors; first += together) {
    const batch: Array<StreamAppend> = []
    for (let n = first; n < Math.min(actors, first + together); n++) {
      batch.push({
        stream: `vm/web-${n}`,
        expectedRevision: -1,
        facts: life(n).map((fact, index) => draft(n, index, fact))
      })
    }
    yield* store.append(batch)
  }
})

function heapBytes(): number {
  const { gc } = globalThis as { readonly gc?: () => void }
  if (gc === undefined) throw new Error("run with --expose-gc")
  gc()
  gc()
  return process.memoryUsage().heapUsed
}

const measure = (actors: number) =>
  Effect.gen(function* () {
    yield* fill(actors)
    const store = yield* EventStore
    const before = heapBytes()
    let began = performance.now()
    const states = yield* replay(store, actorKinds, { snapshots: false })
    const replaySeconds = (performance.now() - began) / 1000
    const bytesEach = (heapBytes() - before) / actors
    const { position } = yield* store.head
    yield* saveCheckpoint(store, actorKinds, [...states.values()], position)
    began = performance.now()
    const again = yield* replay(store, actorKinds, { snapshots: true })
    const checkpointSeconds = (performance.now() - began) / 1000
    let result = 0
    for (const [stream, actor] of again) {
      const text = serialize(actor)
      const first = states.get(stream)
      if (first === undefined || serialize(first) !== text) throw new Error(`${stream} differs`)
      result = (Math.imul(result, 31) + text.length) >>> 0
    }
    const each: ActorsResult = {
      actors,
      facts: position,
      bytesEach,
      replaySeconds,
      checkpointSeconds,
      result
    }
    return each
  })

/** In a process of its own, so that nothing else is on its heap. */
export async function benchActors(actors: number): Promise<ActorsResult> {
  const args = ["--expose-gc", "--max-old-space-size=8192", fileURLToPath(import.meta.url), String(actors)]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  return JSON.parse(stdout) as ActorsResult
}

if (import.meta.main) {
  const folder = mkdtempSync(join(tmpdir(), "novacron-bench-"))
  try {
    const store = eventStore.layer({ path: join(folder, "journal.db") }).pipe(Layer.provide(digest.layer))
    console.log(
      JSON.stringify(
        await Effect.runPromise(Effect.scoped(Effect.provide(measure(Number(process.argv[2])), store)))
      )
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
