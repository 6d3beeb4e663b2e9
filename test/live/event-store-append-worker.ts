/**
 * The process that the crash tests kill: opens the store at argv[2], says `open`, and appends batches of
 * argv[3] facts to a few streams for ever, saying `position hash` after each acknowledgement. With argv[3] 0 it
 * only holds the store open. It ends when its standard input does, so that it can't outlive the test.
 */
import { writeSync } from "node:fs"
import { Effect, Layer } from "effect"
import type { Draft } from "../../src/events/envelope.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import * as LiveDigest from "../../src/live/digest.ts"
import { layer } from "../../src/live/event-store.ts"

const [, , path = "", size = "1"] = process.argv
const say = (line: string) => writeSync(1, `${line}\n`)

process.stdin.resume().once("end", () => process.exit(1))

const appendForEver = Effect.gen(function* () {
  const store = yield* EventStore
  let { position } = yield* store.head
  const streams = ["vm/a", "vm/b", "host/c"]
  const revisions = new Map<string, number>()
  for (const stream of streams) {
    const [last] = yield* store.readStream(stream, { direction: "backwards", limit: 1 })
    revisions.set(stream, last?.revision ?? -1)
  }
  say("open")
  if (Number(size) === 0) return yield* Effect.never
  for (let round = 0; ; round++) {
    const stream = streams[round % streams.length] ?? ""
    const expectedRevision = revisions.get(stream) ?? -1
    const facts = Array.from({ length: Number(size) }, (_, index): Draft => ({
      id: `${position + index + 1}#0`,
      type: "novacron.vm.started",
      version: 1,
      timeMs: position + index + 1,
      correlation: `correlation-${position}`,
      causation: `command-${position}`,
      principal: { kind: "system", name: "crash test" },
      node: "node-1",
      answers: null,
      data: { type: "vm.started", padding: "x".repeat((position * 37) % 900) }
    }))
    yield* store.append([{ stream, expectedRevision, facts }])
    position += facts.length
    revisions.set(stream, expectedRevision + facts.length)
    say(`${position} ${(yield* store.head).hash}`)
  }
})

await Effect.runPromise(
  appendForEver.pipe(
    Effect.provide(Layer.provideMerge(layer({ path, indexAfterFacts: 30 }), LiveDigest.layer))
  )
)
