/** Nodes without a kernel know what was taken back: hosts among themselves refuse it too, also after a restart and with nobody to ask. */
import assert from "node:assert/strict"
import { X509Certificate } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { Effect, References } from "effect"
import type { Scope } from "effect"
import { Link } from "../../src/kernel/ports/link.ts"
import { issueIdentity } from "../../src/live/ca.ts"
import { followRevoked, serveRevoked } from "../../src/live/ca/revoked.ts"
import { Endpoint, protocols } from "../../src/live/link/endpoint.ts"
import { isConnected, newAuthority, scratchFolder, startNodeAs, startNode, until } from "./link-nodes.ts"
import { startRegister } from "./register-world.ts"

const run =
  <A, E>(work: Effect.Effect<A, E, Scope.Scope>) =>
  () =>
    Effect.runPromise(work.pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")))

type Node = Effect.Success<ReturnType<typeof startNode>>

const follow = (node: Node, path: string) =>
  followRevoked(() => ["node-ca"], path).pipe(
    Effect.provideService(Link, node.link),
    Effect.provideService(Endpoint, node.endpoint)
  )

const endsMs = Date.now() + 3_600_000

/** So many certificates of names that nobody has any more. */
const others = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, at) => [`B${String(at).padStart(31, "0")}`, endsMs]))

test(
  "a host learns from a node with a kernel what was taken back, and refuses it after a restart with nobody there",
  { timeout: 60_000 },
  run(
    Effect.gen(function* () {
      const ca = yield* newAuthority
      const world = yield* startRegister(ca)
      const folder = yield* scratchFolder
      const path = join(folder, "revoked.json")
      const identity = yield* issueIdentity(ca, "host-a")
      const stolen = yield* startNode(ca, "host-b", { backoffMinMs: 10 })
      const serial = new X509Certificate(stolen.identity.certificate).serialNumber
      // More than a page has.
      const before = { ...others(1200) }
      const taken = { ...before, [serial]: endsMs }
      let revoked: Record<string, number> = before
      const kernel = {
        ...world.kernel,
        resident: () => new Map([["authority/nodes", { chart: { context: { revoked } } }]]) as never
      }
      yield* Effect.scoped(
        Effect.gen(function* () {
          const home = yield* startNode(ca, "node-ca")
          yield* Effect.provideService(serveRevoked(kernel), Link, home.link)
          const host = yield* startNodeAs(identity, { backoffMinMs: 10 })
          yield* host.link.connect("node-ca", home.endpoint.address)
          yield* follow(host, path)
          yield* host.link.connect("host-b", stolen.endpoint.address)
          yield* until(isConnected(host.link, "host-b"))
          revoked = taken
          yield* until(Effect.map(isConnected(host.link, "host-b"), (is) => !is))
          yield* until(Effect.sync(() => existsSync(path)))
          assert.equal((JSON.parse(readFileSync(path, "utf8")) as Array<unknown>).length, 1201)
          assert.equal(statSync(path).mode & 0o777, 0o600)
          // What can't be written is refused all the same, and written when it can be.
          rmSync(path)
          mkdirSync(join(path, "in-the-way"), { recursive: true })
          const late = yield* startNode(ca, "host-c", { backoffMinMs: 10 })
          yield* host.link.connect("host-c", late.endpoint.address)
          yield* until(isConnected(host.link, "host-c"))
          const lateSerial = new X509Certificate(late.identity.certificate).serialNumber
          revoked = { ...taken, [lateSerial]: endsMs }
          yield* until(Effect.map(isConnected(host.link, "host-c"), (is) => !is))
          rmSync(path, { recursive: true })
          yield* until(Effect.sync(() => existsSync(path)))
          assert.ok(readFileSync(path, "utf8").includes(lateSerial))
          // A node that is behind takes nothing out again.
          revoked = { ...others(2) }
          yield* Effect.sleep(2500)
          const still = yield* Effect.flip(host.endpoint.dial(stolen.endpoint.address, protocols.link, null))
          assert.match(still.reason, /was taken back/)
        })
      )
      const again = yield* startNodeAs(identity)
      yield* follow(again, path)
      const refused = yield* Effect.flip(again.endpoint.dial(stolen.endpoint.address, protocols.link, null))
      assert.match(refused.reason, /was taken back/)
      // What can't be read is not believed, and hinders nothing.
      writeFileSync(path, '[{"serial":"x"}]')
      const third = yield* startNodeAs(identity)
      yield* follow(third, path)
      const seen = yield* third.endpoint.dial(stolen.endpoint.address, protocols.link, null)
      seen.socket.destroy()
    })
  )
)
