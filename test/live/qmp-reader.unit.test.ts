import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { parseLine, QmpReader } from "../../src/live/hypervisor/qmp-reader.ts"

const cut = (bytes: Buffer, at: ReadonlyArray<number>): ReadonlyArray<Buffer> => {
  const places = [0, ...at.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return places.slice(1).map((end, index) => bytes.subarray(places[index] ?? 0, end))
}

const readAll = (reader: QmpReader, chunks: ReadonlyArray<Buffer>) =>
  chunks.flatMap((chunk) => [...reader.push(chunk)])

test("messages are the same however the bytes are cut", () => {
  const message = fc.oneof(
    fc.record({ return: fc.jsonValue(), id: fc.nat() }),
    fc.record({ error: fc.record({ class: fc.string(), desc: fc.string() }), id: fc.nat() }),
    fc.record({ event: fc.string(), data: fc.dictionary(fc.string(), fc.jsonValue()) })
  )
  fc.assert(
    fc.property(fc.array(message), fc.array(fc.nat()), (messages, places) => {
      const lines = messages.map((each) => JSON.stringify(each))
      const bytes = Buffer.from(lines.map((line) => `${line}\r\n`).join(""))
      const found = readAll(new QmpReader(), cut(bytes, places))
      assert.deepEqual(found, lines.map(parseLine))
      assert.ok(found.every((each) => each.type !== "malformed"))
    })
  )
})

test("whatever the bytes are, it answers with messages", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4096 }), fc.array(fc.nat()), (bytes, places) => {
      const chunks = cut(Buffer.from(bytes), places)
      for (const message of readAll(new QmpReader(256), chunks)) assert.equal(typeof message.type, "string")
    })
  )
  fc.assert(
    fc.property(fc.json(), (line) => {
      assert.equal(typeof parseLine(line).type, "string")
    })
  )
})

test("a line that never ends is malformed once, and nothing is read after it", () => {
  const reader = new QmpReader(64)
  const found = readAll(reader, [
    Buffer.alloc(40, 0x20),
    Buffer.alloc(40, 0x20),
    Buffer.from('\n{"event":"STOP"}\n')
  ])
  assert.deepEqual(
    found.map((message) => message.type),
    ["malformed"]
  )
})

test("answers, errors, events and the greeting are told apart", () => {
  assert.deepEqual(parseLine('{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":22}}}}'), {
    type: "greeting",
    version: "7.2.22"
  })
  assert.deepEqual(parseLine('{"return":{},"id":3}'), { type: "return", id: 3, value: {} })
  assert.deepEqual(parseLine('{"id":4,"error":{"class":"GenericError","desc":"no"}}'), {
    type: "error",
    id: 4,
    class: "GenericError",
    reason: "no"
  })
  assert.deepEqual(parseLine('{"event":"STOP"}'), { type: "event", name: "STOP", data: {} })
  for (const line of ["", "7", "[]", "{}", '{"return":1}', '{"id":1}', '{"id":1,"error":"x"}']) {
    assert.equal(parseLine(line).type, "malformed", line)
  }
})
