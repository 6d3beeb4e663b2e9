/** A member in a process of its own, which its test stops, lets go on, and kills. Tells its address by the channel. */
import { Effect } from "effect"
import { swimActor } from "../../src/actors/swim/chart.ts"
import { wakesAtMs } from "../../src/actors/swim/decide.ts"
import type { SwimSettings } from "../../src/events/swim.ts"
import { clusterKeys } from "../../src/live/gossip/keys.ts"
import { GossipMember } from "../../src/live/gossip/member.ts"

export interface ChildOptions {
  readonly id: string
  readonly port: number
  readonly seeds: ReadonlyArray<string>
  readonly settings: SwimSettings
  readonly secret: string
  readonly incarnationFile: string
}

const options = JSON.parse(process.argv[2] ?? "{}") as ChildOptions

const main = Effect.gen(function* () {
  const member = yield* GossipMember.open({
    actor: swimActor,
    wakesAtMs: wakesAtMs as never,
    id: options.id,
    listen: { host: "127.0.0.1", port: options.port },
    advertised: null,
    meta: "child",
    settings: options.settings,
    keys: clusterKeys("blue", [Buffer.from(options.secret, "hex")]),
    incarnationFile: options.incarnationFile,
    changed: () => {},
    failed: (error) => {
      throw error
    }
  })
  member.join(options.seeds)
  process.send?.(member.address)
  yield* Effect.never
})

await Effect.runPromise(Effect.scoped(main))
