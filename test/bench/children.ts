/** What benches have run in processes of their own. */
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"

/** Its next message, or how it ended without one. */
export async function said<A>(child: ChildProcess): Promise<A> {
  const ended = new AbortController()
  try {
    const [message] = await Promise.race([
      once(child, "message", { signal: ended.signal }),
      once(child, "exit", { signal: ended.signal }).then(([code]) => {
        throw new Error(`${child.spawnargs.slice(1).join(" ")} ended with ${String(code)}`)
      })
    ])
    return message as A
  } finally {
    ended.abort()
  }
}

export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, "exit")
  child.kill("SIGKILL")
  await exit
}
