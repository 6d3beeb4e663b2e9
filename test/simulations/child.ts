/** A process of a test's own, which says one thing by the channel and ends. */
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"

/** What the file beside this one says, run with these arguments; rejects when it ends without a word. */
export const saidByChild = <Said>(file: string, argv: ReadonlyArray<string>): Promise<Said> =>
  new Promise<Said>((resolve, reject) => {
    const path = fileURLToPath(new URL(file, import.meta.url))
    // A history is a map, which JSON has not.
    const child = fork(path, argv, { serialization: "advanced" })
    let last: { readonly said: Said } | null = null
    child.on("message", (said) => (last = { said: said as Said }))
    child.on("error", reject)
    child.on("exit", (code) =>
      last === null
        ? reject(new Error(`${[file, ...argv].join(" ")}: ended with ${code} and no word`))
        : resolve(last.said)
    )
  })
