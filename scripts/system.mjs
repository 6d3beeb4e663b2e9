/**
 * The system packages that NovaCron needs beside Node: QEMU and its disk tool. Plain JavaScript without
 * dependencies, because it runs on the machine's own Node before anything is installed.
 */
import { spawnSync } from "node:child_process"
import { accessSync, constants, readdirSync } from "node:fs"
import { delimiter, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { withLock } from "./lock.mjs"

/** What must be found on PATH, and the Debian package that brings it. */
export const systemTools = [
  { command: "qemu-system-x86_64", package: "qemu-system-x86" },
  { command: "qemu-img", package: "qemu-utils" }
]

/** What the tests compare with, besides: other programs that read what NovaCron writes. */
export const testTools = [
  { command: "openssl", package: "openssl" },
  { command: "cpio", package: "cpio" }
]

/** Held by whoever changes node_modules or the system's packages for this clone. */
export const setupLock = join(dirname(dirname(fileURLToPath(import.meta.url))), ".novacron", "setup.lock")

const aptTimeoutMs = 15 * 60_000
const lockWaitMaxMs = 15 * 60_000
const aptOptions = ["-q", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"]

/** An expected failure of the set-up: its message is all the user needs, no stack. */
export class SetupError extends Error {}

/** True where an executable file of that name is in one of `path`'s folders. */
export function onPath(command, path = process.env.PATH ?? "") {
  return path.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK)
      return folder !== ""
    } catch {
      return false
    }
  })
}

/** True when the user wants no system packages, or runs machines that need none. */
export function systemIsOptional(args, environment = process.env) {
  const driver = args.findIndex((arg) => arg === "--driver")
  return (
    environment.NOVACRON_SETUP === "no-system" ||
    args.includes("--driver=sim") ||
    (driver >= 0 && args[driver + 1] === "sim")
  )
}

function apt(args) {
  const { status, error } = spawnSync("apt-get", [...aptOptions, ...args], {
    stdio: ["ignore", "inherit", "inherit"],
    timeout: aptTimeoutMs,
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" }
  })
  if (error) console.error(`set-up: apt-get ${args[0]}: ${error.message}`)
  return status === 0
}

function listsAreEmpty() {
  try {
    return !readdirSync("/var/lib/apt/lists").some((name) => /_(Packages|InRelease|Release)/.test(name))
  } catch {
    return true
  }
}

/** Runs `work` when no other set-up of this clone is running. */
export function alone(work) {
  const onWait = (pid) => console.error(`set-up: waiting for another set-up here (process ${pid})`)
  return withLock(setupLock, lockWaitMaxMs, onWait, work)
}

const missingOf = (tools) => tools.filter((tool) => !onPath(tool.command))

const mayInstall = () => process.getuid?.() === 0 && onPath("apt-get")

/**
 * Installs what is missing when it may, which is as root where there is apt-get. Throws a SetupError that names
 * the one command to run where it may not, or when installing did not work.
 */
export async function ensureSystem(tools = systemTools) {
  const missing = missingOf(tools)
  if (missing.length > 0 && !mayInstall()) throw new SetupError(whatToDo(missing))
  if (missing.length > 0) await alone(() => install(missingOf(tools)))
  // The lab guest is made of packages that apt-get downloads, which it can't without lists.
  else if (mayInstall() && listsAreEmpty()) await alone(() => apt(["update"]))
}

const commandsOf = (tools) => tools.map((tool) => tool.command).join(", ")
const installOf = (tools) => [
  "install",
  "-y",
  "--no-install-recommends",
  ...tools.map((tool) => tool.package)
]
const byHand = (tools) => `\n\n  sudo apt-get update && sudo apt-get ${installOf(tools).join(" ")}\n`

function whatToDo(missing) {
  const how = onPath("apt-get")
    ? `Run this once:${byHand(missing)}`
    : "Install QEMU 7.2 or newer with this system's package manager."
  const without = "To go on without QEMU, with simulated machines only, set NOVACRON_SETUP=no-system."
  return `${commandsOf(missing)} not found. ${how}\n${without}`
}

function install(missing) {
  if (missing.length === 0) return
  const request = installOf(missing)
  console.error(`set-up: installing ${missing.map((tool) => tool.package).join(", ")} with apt-get`)
  const updated = listsAreEmpty() && apt(["update"])
  // Lists that are there may be too old to install from, which only shows when the download fails.
  const installed = apt(request) || (!updated && apt(["update"]) && apt(request))
  if (!installed) throw new SetupError(`apt-get could not install them. Run this by hand:${byHand(missing)}`)
  const still = missingOf(missing)
  if (still.length > 0) throw new SetupError(`installed, but not on PATH: ${commandsOf(still)}`)
}
