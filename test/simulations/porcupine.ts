/** porcupine (Athalye), which reads histories beside our own checker: `porcupine/main.go`, built when it is wanted. */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { goBuild, goFetch, goMissing } from "../bench/go.ts"

const exec = promisify(execFile)
const source = fileURLToPath(new URL("porcupine", import.meta.url))
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
  const missing = goMissing()
  if (missing !== null) return { missing: `porcupine can't be built: ${missing}` }
  try {
    await goFetch(source)
  } catch (error) {
    return { missing: `porcupine can't be fetched: ${(error as Error).message.slice(0, 300)}` }
  }
  return { path: await goBuild(source, join(folder, "porcupine")) }
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
