/** Files of the certificate authority and of a node's identity: private to their owner, written whole or not. */
import { randomBytes } from "node:crypto"
import { link, mkdir, open, readdir, readFile, rename, unlink } from "node:fs/promises"
import { dirname } from "node:path"
import { Effect, Schema } from "effect"

/** What the authority refuses or can't do. `reason` never holds a secret. */
export class CaError extends Schema.TaggedError<CaError>()("CaError", {
  code: Schema.Literals([
    "exists",
    "missing",
    "invalid",
    "token-refused",
    "name-taken",
    "limit",
    "unreachable",
    "unavailable",
    "failed"
  ]),
  path: Schema.String,
  reason: Schema.String
}) {}

const reasonOf = (cause: unknown) => (cause instanceof Error ? cause.message : String(cause))
const codeOf = (cause: unknown) => (cause as { code?: unknown } | null)?.code

const attempt = <A>(path: string, work: () => Promise<A>) =>
  Effect.tryPromise({
    try: work,
    catch: (cause) => {
      const code = codeOf(cause)
      const kind = code === "ENOENT" ? "missing" : code === "EEXIST" ? "exists" : "failed"
      return new CaError({ code: kind, path, reason: reasonOf(cause) })
    }
  })

export const makePrivateFolder = (path: string) =>
  attempt(path, () => mkdir(path, { recursive: true, mode: 0o700 })).pipe(Effect.asVoid)

export const readText = (path: string) => attempt(path, () => readFile(path, "utf8"))

/** Make sure that a rename or link in `path`'s folder survives a power cut. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(path), "r")
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

async function writeAside(path: string, text: string): Promise<string> {
  const aside = `${path}.${randomBytes(6).toString("hex")}.tmp`
  const file = await open(aside, "wx", 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
  return aside
}

/** Put the file in place of what may be there. Mode 0600. */
export const replaceFile = (path: string, text: string) =>
  attempt(path, async () => {
    await rename(await writeAside(path, text), path)
    await syncFolder(path)
  })

/** Make the file; `exists` when one is there already. Of two that try, one succeeds. Mode 0600. */
export const createFile = (path: string, text: string) =>
  attempt(path, async () => {
    const aside = await writeAside(path, text)
    try {
      await link(aside, path)
    } finally {
      await unlink(aside)
    }
    await syncFolder(path)
  })

/** Move a file or a folder; `missing` when it is not there (any more). Of two that try, one succeeds. */
export const moveFile = (from: string, to: string) =>
  attempt(from, async () => {
    await rename(from, to)
    await syncFolder(to)
  })

/** The names in a folder; none where there is no such folder. */
export const listFolder = (path: string) =>
  attempt(path, () => readdir(path)).pipe(
    Effect.catch((error) => (error.code === "missing" ? Effect.succeed([]) : Effect.fail(error)))
  )

/** Remove a file, if it is there. */
export const removeFile = (path: string) =>
  attempt(path, async () => {
    await unlink(path)
    await syncFolder(path)
  }).pipe(Effect.catch((error) => (error.code === "missing" ? Effect.void : Effect.fail(error))))
