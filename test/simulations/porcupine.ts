/** porcupine (Athalye), which reads histories beside our own checker: `porcupine/main.go`, built when it is wanted. */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const exec = promisify(execFile)
const source = fileURLToPath(new URL("porcupine", import.meta.url))
/** Where Go puts itself, where Debian puts it. */
const compilers = ["/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/usr/bin/go"]
/** The first time fetches the module. */
const buildMsMax = 180_000
const checkMsMax = 240_000

/** Of one file, what it says of each key. */
interface Said {
  readonly operations: number
  readonly keys: Readonly<Record<string, "Ok" | "Illegal" | "Unknown">>
}

/** The program, built into this folder, or why it can't be had. A program that is wrong rejects. */
export async function buildPorcupine(
  folder: string
): Promise<{ readonly path: string } | { readonly missing: string }> {
  const go = compilers.find((path) => existsSync(path))
  if (go === undefined) return { missing: `Go is not there, which builds porcupine: ${compilers.join(", ")}` }
  const options = {
    cwd: source,
    timeout: buildMsMax,
    env: { ...process.env, GOTOOLCHAIN: "local", GOFLAGS: "-mod=readonly -buildvcs=false" }
  }
  try {
    await exec(go, ["mod", "download"], options)
  } catch (error) {
    return { missing: `porcupine can't be fetched: ${(error as Error).message.slice(0, 300)}` }
  }
  const path = join(folder, "porcupine")
  await exec(go, ["build", "-o", path, "."], options)
  return { path }
}

/** In the order of the files. */
export async function askPorcupine(
  program: string,
  files: ReadonlyArray<string>
): Promise<ReadonlyArray<Said>> {
  const { stdout } = await exec(program, [...files], { timeout: checkMsMax, maxBuffer: 64 * 1024 * 1024 })
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Said)
}
