/** The API on a loopback port over the real kernel and actors, a store in memory, and agents that do as asked. */
import type { AddressInfo } from "node:net"
import { Context, Effect, Exit, Layer, Scope, Stream } from "effect"
import { HttpServer } from "effect/http"
import { actorKinds as kinds } from "../../src/actors/kinds.ts"
import type { HypervisorReport, HypervisorRequest } from "../../src/events/requests.ts"
import { Kernel } from "../../src/kernel/kernel.ts"
import { Agents } from "../../src/kernel/ports/agents.ts"
import { ConsoleError, Consoles } from "../../src/kernel/ports/consoles.ts"
import { EventStore } from "../../src/kernel/ports/event-store.ts"
import { apiServer } from "../../src/live/api/server.ts"
import type { ApiServerOptions } from "../../src/live/api/server.ts"
import { Metrics } from "../../src/live/metrics.ts"
import { layer as projectorLayer } from "../../src/live/projector.ts"
import { allProjections, queriesLayer, readsLayer, viewsLayer } from "../../src/live/views.ts"
import { hostFacts } from "../actors/messages.ts"
import { layer as digest } from "../../simulations/world/digest.ts"
import { layer as memoryStore } from "../../simulations/world/event-store.ts"

export const token = `nct_${"t".repeat(43)}`

const answers: Partial<Record<HypervisorRequest["op"], HypervisorReport>> = {
  define: { type: "hypervisor.defined" },
  start: { type: "hypervisor.started", accelerator: "tcg" },
  stop: { type: "hypervisor.stopped" },
  pause: { type: "hypervisor.paused" },
  resume: { type: "hypervisor.resumed" },
  reboot: { type: "hypervisor.rebooted" },
  remove: { type: "hypervisor.removed" },
  restore: { type: "hypervisor.restored" },
  checkIncoming: { type: "hypervisor.checked", blockers: [] }
}

const agents = Layer.succeed(
  Agents,
  Agents.of({
    perform: (_key, request) => {
      if (request.op === "reboot" && request.vm.startsWith("slow-")) return Stream.never
      if (request.op === "snapshot" && request.snapshot !== "full") {
        return Stream.make({ type: "hypervisor.snapshotTaken", bytes: 4096 } as const)
      }
      const answer = answers[request.op] ?? {
        type: "hypervisor.failed" as const,
        op: request.op,
        code: "no-room" as const,
        reason: "there is no room"
      }
      return Stream.make(answer)
    }
  })
)

/** The agents here have no machines, so there are no consoles either. */
const consoles = Layer.succeed(
  Consoles,
  Consoles.of({
    simulated: true,
    open: ({ vm, host }) =>
      Effect.fail(new ConsoleError({ vm, host, code: "wrong-state", reason: "it does not run" }))
  })
)

export interface World {
  readonly url: string
  readonly kernel: Context.Service.Shape<typeof Kernel>
  readonly store: Context.Service.Shape<typeof EventStore>
  /** `fetch` with the token, JSON in and out. */
  readonly call: (
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>
  ) => Promise<Answer>
  readonly close: () => Promise<void>
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: any
}

/** Two hosts `a` and `b` are registered. */
export async function openWorld(
  options: Partial<ApiServerOptions> = {},
  /** Before each append. */
  held: () => Effect.Effect<void> = () => Effect.void
): Promise<World> {
  const scope = Scope.makeUnsafe()
  const projector = projectorLayer({ path: ":memory:", projections: allProjections })
  const kernel = Kernel.layer({ kinds, node: "test" }).pipe(
    Layer.provideMerge(Layer.mergeAll(viewsLayer(), queriesLayer, agents, consoles, Metrics.layer)),
    Layer.provideMerge(projector),
    Layer.provideMerge(
      Layer.effect(
        EventStore,
        Effect.map(EventStore, (store) =>
          EventStore.of({
            ...store,
            append: (batch) => Effect.andThen(Effect.suspend(held), store.append(batch))
          })
        )
      ).pipe(Layer.provide(memoryStore()))
    ),
    Layer.provide(digest)
  )
  const served = apiServer({
    listen: { host: "127.0.0.1", port: 0 },
    token,
    node: "test",
    version: "0.0.0",
    ...options
  }).pipe(Layer.provideMerge(readsLayer), Layer.provideMerge(kernel))
  const context = await Effect.runPromise(Layer.buildWithScope(served, scope))
  const server = Context.get(context, HttpServer.HttpServer)
  const address = server.address as unknown as AddressInfo
  const url = `http://127.0.0.1:${address.port}`
  const world: World = {
    url,
    kernel: Context.get(context, Kernel),
    store: Context.get(context, EventStore),
    call: async (method, path, body, headers = {}) => {
      const response = await fetch(url + path, {
        method,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers },
        ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) })
      })
      const text = await response.text()
      const isJson = response.headers.get("content-type")?.includes("json") === true
      return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text }
    },
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
  await Effect.runPromise(Effect.forEach(["a", "b"], (name) => register(world, name)))
  return world
}

const register = (world: World, name: string) =>
  world.kernel.submit({
    stream: `host/${name}`,
    message: {
      type: "host.register",
      address: "127.0.0.1:0",
      facts: {
        ...hostFacts,
        cpus: 8,
        memoryMib: 16_384,
        diskMib: 102_400,
        driver: "sim",
        machines: ["pc", "q35"]
      }
    },
    id: `register-${name}`,
    correlation: `register-${name}`,
    principal: { kind: "node", name }
  })
