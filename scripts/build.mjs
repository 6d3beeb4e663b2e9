/** Emits dist/ for the published package: JavaScript and declarations from src/, nothing else. */
import { spawnSync } from "node:child_process"
import { createRequire } from "node:module"
import { rmSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const compiler = join(
  dirname(createRequire(import.meta.url).resolve("typescript/package.json")),
  "bin",
  "tsc"
)

// What an earlier build left and this one doesn't write would be published too.
rmSync(join(root, "dist"), { recursive: true, force: true })
const { status, error } = spawnSync(process.execPath, [compiler, "-p", "tsconfig.build.json"], {
  cwd: root,
  stdio: "inherit"
})
if (error) throw error
process.exitCode = status ?? 1
