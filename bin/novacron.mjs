#!/usr/bin/env node
/**
 * The `novacron` command. Runs dist/src/main.js (installed from npm) or src/main.ts (a clone), on Node 24 or newer:
 * on an older one it runs the binary of the npm package `node` and passes signals and the exit code through.
 */
import { spawn } from "node:child_process"
import { existsSync, realpathSync } from "node:fs"
import { createRequire } from "node:module"
import { constants } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { useCompileCache } from "./compile-cache.mjs"

const nodeMajorMin = 24
const root = dirname(dirname(realpathSync(fileURLToPath(import.meta.url))))
const built = join(root, "dist", "src", "main.js")
const source = join(root, "src", "main.ts")
const entry = existsSync(source) ? source : built

function pinnedNode() {
  try {
    const require = createRequire(join(root, "package.json"))
    const binary = join(dirname(require.resolve("node/package.json")), "bin", "node")
    return existsSync(binary) ? binary : undefined
  } catch {
    return undefined
  }
}

function runOn(node) {
  const child = spawn(node, [entry, ...process.argv.slice(2)], { stdio: "inherit" })
  // A terminal signals the whole group itself; a signal sent to this process alone has to be handed on.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"]) {
    process.on(signal, () => {
      if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal)
    })
  }
  child.on("error", (error) => {
    console.error(`novacron: ${node}: ${error.message}`)
    process.exitCode = 1
  })
  child.on("exit", (code, signal) => {
    process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0)
  })
}

useCompileCache()
if (Number(process.versions.node.split(".")[0]) >= nodeMajorMin) {
  process.argv[1] = entry
  await import(pathToFileURL(entry).href)
} else {
  const node = pinnedNode()
  if (node === undefined) {
    console.error(
      `novacron: needs Node ${nodeMajorMin} or newer; this is ${process.version}, and the npm package "node" that ` +
        "brings one is not installed (were install scripts left out? npm rebuild node)"
    )
    process.exitCode = 1
  } else runOn(node)
}
