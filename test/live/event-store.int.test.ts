import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Layer } from "effect"
import * as LiveDigest from "../../src/live/digest.ts"
import { layer } from "../../src/live/event-store.ts"
import { eventStoreConformance } from "../conformance/event-store.ts"

eventStoreConformance("the live world", () => {
  const folder = mkdtempSync(join(tmpdir(), "novacron-store-"))
  return {
    layer: Layer.provideMerge(Layer.fresh(layer({ path: join(folder, "events.db") })), LiveDigest.layer),
    remove: () => rmSync(folder, { recursive: true })
  }
})
