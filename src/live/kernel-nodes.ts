/**
 * Which nodes have a kernel, as a host without one knows them: it was told of one, which tells it of the others. It keeps a link to
 * each, and does what any of them asks; they agree among themselves on who does.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { Effect, Schema } from "effect"
import { Link } from "../kernel/ports/link.ts"
import { askKernelNodes, KernelNodes } from "./consensus/joining.ts"

const askEveryMs = 2000

const decode = Schema.decodeUnknownSync(Schema.fromJsonString(KernelNodes))

/** As they were when this node last ran; none where that can't be read. */
export function rememberedKernels(path: string): KernelNodes["nodes"] {
  if (!existsSync(path)) return []
  try {
    return decode(readFileSync(path, "utf8")).nodes
  } catch {
    return []
  }
}

function writeKnown(path: string, nodes: KernelNodes["nodes"]): void {
  writeFileSync(`${path}.new`, JSON.stringify({ nodes }), { mode: 0o600 })
  renameSync(`${path}.new`, path)
}

export interface KnownKernels {
  readonly names: () => ReadonlyArray<string>
  /** Changes whenever a link to one of them is a new one; null while there is none. */
  readonly linkedSince: Effect.Effect<number | null>
}

/** Begins with `first` and with what `path` remembers, and keeps up with what they say for as long as the scope lives. */
export const followKernels = Effect.fn("followKernels")(function* (
  first: KernelNodes["nodes"][number],
  path: string
) {
  const link = yield* Link
  let known: KernelNodes["nodes"] = [first]
  const dialled = new Map<string, string>()
  const connectAll = Effect.fnUntraced(function* () {
    for (const { node, address } of known) {
      if (dialled.get(node) === address) continue
      dialled.set(node, address)
      yield* link
        .connect(node, address)
        .pipe(Effect.catch((error) => Effect.logWarning(`no link to ${node} is kept: ${error.message}`)))
    }
    for (const node of dialled.keys()) {
      if (known.some((one) => one.node === node)) continue
      dialled.delete(node)
      yield* link.disconnect(node)
    }
  })
  const learn = Effect.fnUntraced(function* (nodes: KernelNodes["nodes"]) {
    if (nodes.length === 0 || JSON.stringify(nodes) === JSON.stringify(known)) return
    known = nodes
    writeKnown(path, nodes)
    yield* connectAll()
  })
  const isConnected = Effect.map(link.peers, (peers) =>
    peers.filter((peer) => peer.state === "connected" && known.some(({ node }) => node === peer.node))
  )
  const remembered = rememberedKernels(path)
  if (remembered.length > 0) known = remembered
  yield* connectAll()
  const keepUp = Effect.gen(function* () {
    const [peer] = yield* isConnected
    if (peer !== undefined)
      yield* Effect.flatMap(askKernelNodes(peer.node), ({ nodes }) => learn(nodes)).pipe(Effect.ignore)
    yield* Effect.sleep(askEveryMs)
  })
  yield* Effect.forkScoped(Effect.forever(keepUp))
  const kernels: KnownKernels = {
    names: () => known.map(({ node }) => node),
    linkedSince: Effect.map(isConnected, (peers) =>
      peers.length === 0 ? null : Math.max(...peers.map(({ sinceMs }) => sinceMs))
    )
  }
  return kernels
})
