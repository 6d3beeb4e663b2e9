import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Layer } from "effect"
import * as LiveDigest from "../../src/live/digest.ts"
import { layer } from "../../src/live/event-store.ts"
import type { SqliteOptions } from "../../src/live/event-store.ts"
import { eventStoreConformance } from "../conformance/event-store.ts"

const conformance = (world: string, options: Omit<SqliteOptions, "path">) =>
  eventStoreConformance(world, () => {
    const folder = mkdtempSync(join(tmpdir(), "novacron-store-"))
    const store = layer({ ...options, path: join(folder, "events.db") })
    return {
      layer: Layer.provideMerge(Layer.fresh(store), LiveDigest.layer),
      remove: () => rmSync(folder, { recursive: true })
    }
  })

conformance("the live world", {})
conformance("the live world, its index written again and again", { indexAfterFacts: 2 })
conformance("the live world, behind another log", { durability: "behind" })
