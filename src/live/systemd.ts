/** Says to systemd how the service is (sd_notify(3)), through its own program: Node has no datagram unix sockets. */
import { execFile } from "node:child_process"
import { Effect } from "effect"

const timeoutMs = 5000

/** Does nothing outside a service of type notify; a failure is logged, never fatal. */
export const notify = (state: "--ready" | "--stopping"): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (!process.env["NOTIFY_SOCKET"]) return Effect.void
    return Effect.tryPromise(
      () =>
        new Promise<void>((resolve, reject) => {
          execFile("systemd-notify", [state, `--pid=${process.pid}`], { timeout: timeoutMs }, (error) =>
            error ? reject(error) : resolve()
          )
        })
    ).pipe(Effect.catch((error) => Effect.logWarning("systemd was not told", error)))
  })
