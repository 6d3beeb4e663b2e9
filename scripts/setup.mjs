/**
 * Gets a fresh clone ready: npm packages as locked, the pinned Node, QEMU. Runs before `npm start` and
 * `npm test` on the machine's own Node (20 or newer), so it is plain JavaScript without dependencies.
 *
 *   node scripts/setup.mjs [--no-system]      NOVACRON_SETUP=no-system does the same
 *
 * Does nothing, quickly, when nothing is to do. Two at a time are safe: the second waits for the first.
 */
import { spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { alone, ensureSystem, onPath, SetupError } from "./system.mjs"
import { systemIsOptional, systemTools, testTools } from "./system.mjs"

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const modules = join(root, "node_modules")
const pinnedNode = join(modules, "node", "bin", "node")
const stampPath = join(modules, ".novacron-setup.json")
const nodeMajorMin = 20
const npmTimeoutMs = 10 * 60_000

const say = (line) => console.error(`set-up: ${line}`)
const readJson = (path) => JSON.parse(readFileSync(path, "utf8"))

/** What an installed tree depends on: the lock file, this machine's kind, and the Node binary it got. */
function currentStamp() {
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex")
  const binary = statSync(pinnedNode, { throwIfNoEntry: false })
  return JSON.stringify({
    lock,
    machine: `${process.platform}-${process.arch}`,
    nodeBytes: binary?.size ?? 0
  })
}

const isStamped = () => existsSync(stampPath) && readFileSync(stampPath, "utf8") === currentStamp()

/**
 * True where node_modules is what package-lock.json says, whoever installed it. npm's own record of the tree
 * is compared, so that after `npm install` nothing is thrown away and fetched again.
 */
function treeMatchesLock() {
  const recordPath = join(modules, ".package-lock.json")
  if (!existsSync(recordPath)) return false
  const wanted = readJson(join(root, "package-lock.json")).packages
  const present = readJson(recordPath).packages
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === "" || (present[path] === undefined && entry.optional)) return true
    return present[path]?.version === entry.version && present[path]?.integrity === entry.integrity
  })
}

/** True when the command ended well. It holds the set-up's lock itself, because it outlives a killed set-up. */
function run(command, args, { hold, cwd = root }) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      stdio: ["ignore", "inherit", "inherit"],
      timeout: npmTimeoutMs
    })
    if (child.pid !== undefined) hold(child.pid)
    child.on("error", (error) => {
      say(`${command} ${args.join(" ")}: ${error.message}`)
      resolve(false)
    })
    child.on("exit", (code) => resolve(code === 0))
  })
}

/** The npm that called us, run by the Node that runs it; otherwise the one on PATH. */
function npm(args, hold) {
  const cli = process.env.npm_execpath
  const node = process.env.npm_node_execpath
  const isOurs = cli?.endsWith(".js") && existsSync(cli) && node && !node.startsWith(modules)
  return isOurs ? run(node, [cli, ...args], { hold }) : run("npm", args, { hold })
}

async function installPackages(hold) {
  if (treeMatchesLock()) return
  say("installing npm packages (npm ci)")
  const done = await npm(["ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"], hold)
  if (!done) throw new SetupError("npm ci failed, its message is above. Is the registry reachable?")
}

function nodeVersion() {
  const { status, stdout } = spawnSync(pinnedNode, ["--version"], { encoding: "utf8", timeout: 10_000 })
  return status === 0 ? stdout.trim() : undefined
}

/** The package `node` fetches its binary in an install script, which some npm settings leave out. */
async function ensurePinnedNode(hold) {
  const wanted = `v${readJson(join(root, "package.json")).dependencies.node}`
  if (nodeVersion() !== wanted) {
    say(`fetching Node ${wanted}`)
    const script = join(modules, "node", "installArchSpecificPackage.js")
    const node = process.execPath.startsWith(modules) ? "node" : process.execPath
    await run(node, [script], { hold, cwd: dirname(script) })
  }
  const found = nodeVersion()
  if (found !== wanted) {
    throw new SetupError(
      `${pinnedNode} should be Node ${wanted} and is ${found ?? "missing or does not run"}`
    )
  }
  // npm links only what was there when it looked, which the binary is not without its install script.
  const link = join(modules, ".bin", "node")
  if (!existsSync(link)) {
    rmSync(link, { force: true })
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join("..", "node", "bin", "node"), link)
  }
}

async function ensurePackages() {
  if (isStamped()) return
  if (!onPath("npm") && !process.env.npm_execpath)
    throw new SetupError("npm is not on PATH; it comes with Node")
  await alone(async (hold) => {
    if (isStamped()) return
    await installPackages(hold)
    await ensurePinnedNode(hold)
    writeFileSync(stampPath, currentStamp())
    say("npm packages and Node are ready")
  })
}

async function main(args) {
  if (Number(process.versions.node.split(".")[0]) < nodeMajorMin) {
    throw new SetupError(`Node ${nodeMajorMin} or newer is needed to set up; this is ${process.version}`)
  }
  await ensurePackages()
  if (!args.includes("--no-system") && !systemIsOptional(args))
    await ensureSystem([...systemTools, ...testTools])
}

main(process.argv.slice(2)).catch((error) => {
  say(error instanceof SetupError ? error.message : error.stack)
  process.exitCode = 1
})
