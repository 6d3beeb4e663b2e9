/** The one thing that a member keeps: its incarnation, in a small file, on the disk before anybody hears of it. */
import { Effect, Schema } from "effect"
import { readText, replaceFile } from "../ca/files.ts"

export class GossipFileError extends Schema.TaggedError<GossipFileError>()("GossipFileError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

const failed = (path: string) => (error: { readonly message: string }) =>
  new GossipFileError({ path, reason: error.message })

/** 0 when there is no file; a lower one than others know is raised when they say so. */
export const readIncarnation = Effect.fn("gossip.readIncarnation")(function* (path: string) {
  const text = yield* readText(path).pipe(
    Effect.catch((error) =>
      error.code === "missing" ? Effect.succeed("0\n") : Effect.fail(failed(path)(error))
    )
  )
  const incarnation = /^\d{1,16}\n$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(incarnation))
    return yield* new GossipFileError({ path, reason: "a whole number and a line's end are expected" })
  return incarnation
})

export const writeIncarnation = (path: string, incarnation: number) =>
  replaceFile(path, `${incarnation}\n`).pipe(Effect.mapError(failed(path)))
