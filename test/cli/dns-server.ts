/**
 * Answers for one name from a file that says which addresses it has now, as JSON, or that there is no such name while it has none.
 * (RFC 1035; IPv4 alone.)
 *
 *     node test/cli/dns-server.ts 10.0.0.53 nodes.test addresses.json
 */
import { createSocket } from "node:dgram"
import { readFileSync } from "node:fs"

const [own = "", name = "", file = ""] = process.argv.slice(2)
const headerBytes = 12
const ttlSeconds = 0
const types = { a: 1 } as const
const codes = { fine: 0, noSuchName: 3 } as const

/** The name that is asked for, and where the question ends. */
function questionOf(bytes: Buffer): { readonly name: string; readonly type: number; readonly end: number } {
  const labels = []
  let at = headerBytes
  for (let length = bytes.readUInt8(at); length > 0; length = bytes.readUInt8(at)) {
    labels.push(bytes.toString("latin1", at + 1, at + 1 + length))
    at += 1 + length
  }
  return { name: labels.join(".").toLowerCase(), type: bytes.readUInt16BE(at + 1), end: at + 5 }
}

function answerOf(asked: Buffer): Buffer {
  const question = questionOf(asked)
  const all = JSON.parse(readFileSync(file, "utf8")) as ReadonlyArray<string>
  const isKnown = question.name === name && all.length > 0
  const given = isKnown && question.type === types.a ? all : []
  const header = Buffer.alloc(headerBytes)
  asked.copy(header, 0, 0, 2)
  // An answer, from whoever knows, to the question that it repeats.
  header.writeUInt16BE(0x8400 | (isKnown ? codes.fine : codes.noSuchName), 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(given.length, 6)
  const records = given.map((address) => {
    const record = Buffer.alloc(16)
    // The name is where the question has it.
    record.writeUInt16BE(0xc000 | headerBytes, 0)
    record.writeUInt16BE(types.a, 2)
    record.writeUInt16BE(1, 4)
    record.writeUInt32BE(ttlSeconds, 6)
    record.writeUInt16BE(4, 10)
    record.set(address.split(".").map(Number), 12)
    return record
  })
  return Buffer.concat([header, asked.subarray(headerBytes, question.end), ...records])
}

const socket = createSocket("udp4")
socket.on("message", (asked, from) => {
  socket.send(answerOf(asked), from.port, from.address)
})
socket.bind(53, own, () => process.send?.("ready"))
