/** Programs in Go that stand beside ours: other implementations and checkers, built when they are wanted. */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { promisify } from "node:util"

const exec = promisify(execFile)
/** Where Go puts itself, where Debian puts it. */
const compilers = ["/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/usr/bin/go"]
/** The first time fetches modules. */
const timeoutMs = 300_000

/** Why nothing can be built; null when Go is there. */
export const goMissing = (): string | null =>
  compilers.some((path) => existsSync(path)) ? null : `Go is not there: ${compilers.join(", ")}`

/** Runs it in this folder, with what the folder's own go.mod and go.sum say and nothing else. */
async function go(folder: string, args: ReadonlyArray<string>, isOnline: boolean): Promise<void> {
  const path = compilers.find((one) => existsSync(one)) ?? "go"
  const offline = isOnline ? {} : { GOPROXY: "off" }
  const env = { ...process.env, GOTOOLCHAIN: "local", GOFLAGS: "-mod=readonly", ...offline }
  await exec(path, args, { cwd: folder, timeout: timeoutMs, env })
}

/** Rejects where a module can't be had. */
export const goFetch = (source: string): Promise<void> => go(source, ["mod", "download"], true)

/** Builds the program in `source`, and gives its path; rejects with the reason when it can't. */
export async function goBuild(source: string, program: string, isOnline = true): Promise<string> {
  await go(source, ["build", "-o", program, "."], isOnline)
  return program
}
