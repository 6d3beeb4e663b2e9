/**
 * Makes dist/ for the published package: a copy of the repository's shape, with src/ and what it imports compiled
 * and the folders it reads at run time beside it, so that a path relative to a source file leads to the same
 * place from the compiled one.
 */
import { spawnSync } from "node:child_process"
import { cpSync, existsSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const dist = join(root, "dist")
const readAtRunTime = ["guest", "schemas", "package.json"]

/** The compiler's exit code; it writes nothing when the types are wrong. */
function compile() {
  const manifest = createRequire(import.meta.url).resolve("typescript/package.json")
  const compiler = join(dirname(manifest), "bin", "tsc")
  const { status, error } = spawnSync(process.execPath, [compiler, "-p", "tsconfig.build.json"], {
    cwd: root,
    stdio: "inherit"
  })
  if (error) throw error
  return status ?? 1
}

// What an earlier build left and this one doesn't write would be published too.
rmSync(dist, { recursive: true, force: true })
const status = compile()
if (status === 0) {
  for (const name of readAtRunTime) {
    if (existsSync(join(root, name))) cpSync(join(root, name), join(dist, name), { recursive: true })
  }
}
process.exitCode = status
