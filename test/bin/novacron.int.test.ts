/** The command's entry, on folders laid out as a clone and as an installed package. */
import assert from "node:assert/strict"
import { spawn, spawnSync } from "node:child_process"
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { once } from "node:events"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, test } from "node:test"

const root = join(import.meta.dirname, "..", "..")
let folder: string
let entry: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "novacron-bin-"))
  entry = join(folder, "bin", "novacron.mjs")
  cpSync(join(root, "bin"), join(folder, "bin"), { recursive: true })
  writeFileSync(join(folder, "package.json"), `{ "type": "module" }`)
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function plant(path: "src/main.ts" | "dist/src/main.js", body: string): void {
  mkdirSync(join(folder, path, ".."), { recursive: true })
  writeFileSync(join(folder, path), body)
}

/** Says it is an older Node than the one that runs, as `process.versions` would. */
const olderNode = [
  "--import",
  "data:text/javascript,Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.1.0' } })"
]

const cache = () => join(folder, "cache")

/** Without what this process was given for its own cache. */
const environment = (more: Readonly<Record<string, string>> = {}) => {
  const { NODE_COMPILE_CACHE: _, NODE_DISABLE_COMPILE_CACHE: __, ...rest } = process.env
  return { ...rest, CACHE_DIRECTORY: cache(), ...more }
}

const run = (...args: ReadonlyArray<string>) =>
  spawnSync(process.execPath, args, { encoding: "utf8", env: environment() })

test("the source runs in a clone, dist where there is no source, with the arguments", () => {
  plant("dist/src/main.js", `console.log("dist", process.argv.slice(2).join())`)
  assert.equal(run(entry, "vm", "--json").stdout, "dist vm,--json\n")
  plant("src/main.ts", `console.log("source" as string, process.argv.slice(2).join())`)
  assert.equal(run(entry, "vm", "--json").stdout, "source vm,--json\n")
})

test("it works through a link, as npm makes one", () => {
  plant("dist/src/main.js", `console.log("dist")`)
  const link = join(folder, "novacron")
  symlinkSync(entry, link)
  assert.equal(run(link).stdout, "dist\n")
})

test("on an older Node it runs the package's own and passes the exit code on", () => {
  plant("dist/src/main.js", `console.log(process.version); process.exitCode = 7`)
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
  const { status, stdout } = run(...olderNode, entry)
  assert.match(stdout, /^v24\./)
  assert.equal(status, 7)
})

test("on an older Node without the package it says what is missing", () => {
  plant("dist/src/main.js", "")
  const { status, stderr } = run(...olderNode, entry)
  assert.match(stderr, /needs Node 24 or newer; this is v/)
  assert.equal(status, 1)
})

test("a signal reaches the program, and how it ended is passed on", async () => {
  plant(
    "dist/src/main.js",
    `process.on("SIGTERM", () => process.exit(9)); setInterval(() => {}, 1e6); console.log("up")`
  )
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
  const child = spawn(process.execPath, [...olderNode, entry], {
    stdio: ["ignore", "pipe", "inherit"],
    env: environment()
  })
  await once(child.stdout, "data")
  child.kill("SIGTERM")
  assert.deepEqual(await once(child, "exit"), [9, null])
})

/** Where the program's code is cached, and where that of the processes that it starts. */
const tellCache = `import { getCompileCacheDir } from "node:module"
console.log(JSON.stringify([getCompileCacheDir() ?? null, process.env["NODE_COMPILE_CACHE"] ?? null]))`

const toldCache = (more: Readonly<Record<string, string>> = {}): ReadonlyArray<string | null> => {
  const { stdout } = spawnSync(process.execPath, [entry], { encoding: "utf8", env: environment(more) })
  return JSON.parse(stdout) as ReadonlyArray<string | null>
}

test("compiled code is cached where nobody else can write", () => {
  plant("src/main.ts", tellCache)
  for (let round = 0; round < 2; round++) {
    const [used, told] = toldCache()
    assert.ok(used?.startsWith(cache()), String(used))
    assert.equal(told, cache())
  }
  assert.equal(statSync(cache()).mode & 0o777, 0o700)
  assert.ok(readdirSync(cache(), { recursive: true }).length > 1)
})

test("compiled code is not taken from where another could have put it", () => {
  plant("src/main.ts", tellCache)
  const none = [null, null]
  mkdirSync(cache())
  for (const mode of [0o777, 0o770, 0o1777]) {
    chmodSync(cache(), mode)
    assert.deepEqual(toldCache(), none, mode.toString(8))
  }
  chmodSync(cache(), 0o700)
  chmodSync(folder, 0o777)
  assert.deepEqual(toldCache(), none, "the folder above it")
  chmodSync(folder, 0o1777)
  assert.notDeepEqual(toldCache(), none, "the folder above it, where nobody takes away another's")
  chmodSync(folder, 0o700)
})

const onlyRoot = process.getuid?.() === 0 ? false : "only root can give a folder to somebody else"

test("compiled code is not taken from another's folder", { skip: onlyRoot }, () => {
  plant("src/main.ts", tellCache)
  mkdirSync(cache())
  chownSync(cache(), 65_534, 65_534)
  assert.deepEqual(toldCache(), [null, null])
})

test("without a folder for compiled code the program runs all the same", () => {
  plant("src/main.ts", tellCache)
  writeFileSync(cache(), "")
  assert.deepEqual(toldCache(), [null, null])
  assert.deepEqual(toldCache({ NODE_DISABLE_COMPILE_CACHE: "1" }), [null, null])
})
