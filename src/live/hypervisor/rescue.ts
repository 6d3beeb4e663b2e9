/**
 * A second monitor of a QEMU that a guest arrives in by post-copy, over two FIFOs.
 *
 * While memory is still on its way QEMU's main loop may wait for a page of it, and a new connection to its monitor is
 * negotiated by just that loop. So who comes after the link and the agent broke could not even tell it to listen again.
 * A FIFO has no connections: it is negotiated once, before the guest arrives, and stays so for whoever writes next.
 * What is asked out of band is answered by a thread of the monitor's own.
 * See QEMU's docs/interop/qmp-spec, "Out-of-band execution", and docs/devel/migration.rst, "Postcopy recovery".
 */
import { randomUUID } from "node:crypto"
import { closeSync, constants, openSync, writeSync } from "node:fs"
import net from "node:net"
import { Deferred, Effect, Exit, Queue, Scope } from "effect"
import type { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import type { MachinePaths } from "./folder.ts"
import type { QmpArguments } from "./qmp.ts"
import { runTool } from "./tools.ts"

const MAKE_MS = 5_000
const ANSWER_MS = 2_000
/** QEMU's answers and events here are far shorter; the rest of one that is longer is dropped. */
const LINE_BYTES_MAX = 64 * 1024
const STATUSES_KEPT = 16
const TOLD = /^(postcopy-.*|completed|failed|cancelled)$/

/** Before QEMU is started with it; `clearSockets` removed what an earlier one left. */
export const makeRescue = (paths: MachinePaths, asError: (reason: string) => HypervisorError) =>
  runTool("mkfifo", ["-m", "600", "--", `${paths.rescue}.in`, `${paths.rescue}.out`], MAKE_MS).pipe(
    Effect.mapError(({ reason }) => asError(`mkfifo: ${reason}`)),
    Effect.asVoid
  )

export class Rescue {
  readonly #waiting = new Map<string, Deferred.Deferred<boolean>>()
  readonly #socket: net.Socket
  readonly #in: number
  readonly #onEnd: () => void
  /** Of the migration, as QEMU tells them. */
  readonly statuses: Queue.Queue<string>
  #rest = ""
  #status: string | null = null
  #isClosed = false

  constructor(input: number, output: number, statuses: Queue.Queue<string>, onEnd: () => void) {
    this.#in = input
    this.statuses = statuses
    this.#onEnd = onEnd
    this.#socket = new net.Socket({ fd: output, readable: true, writable: false })
    this.#socket.setEncoding("utf8")
    this.#socket.on("data", (chunk) => this.#read(String(chunk)))
    this.#socket.on("error", () => this.end())
    this.#socket.on("close", () => this.end())
  }

  /** The first line may be the rest of one that somebody before us began to read. */
  #read(chunk: string): void {
    const lines = (this.#rest + chunk).split("\n")
    this.#rest = (lines.pop() ?? "").slice(0, LINE_BYTES_MAX)
    for (const line of lines) this.#handle(parsed(line))
  }

  #handle(message: Readonly<Record<string, unknown>>): void {
    if (message["event"] === "MIGRATION") {
      const status = String((message["data"] as { readonly status?: unknown } | undefined)?.status)
      // That it listens again is told as `setup`, while it is still paused.
      if (!TOLD.test(status)) return
      this.#status = status
      Queue.offerUnsafe(this.statuses, status)
      return
    }
    const waiting = this.#waiting.get(String(message["id"]))
    if (waiting !== undefined) Deferred.doneUnsafe(waiting, Effect.succeed("return" in message))
  }

  /** Of the migration, as QEMU last told it; null when it has not told us, or tells no more. */
  get status(): string | null {
    return this.#isClosed ? null : this.#status
  }

  isClosed(): boolean {
    return this.#isClosed
  }

  /** Whether QEMU did it; false as well when it gave no answer within two seconds. */
  execute(how: "execute" | "exec-oob", command: string, args: QmpArguments): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      // Its number may be another file's by now.
      if (this.#isClosed) return Effect.succeed(false)
      const id = randomUUID()
      const waiting = Deferred.makeUnsafe<boolean>()
      this.#waiting.set(id, waiting)
      return Effect.try(() =>
        // At once or not at all: less than PIPE_BUF, see pipe(7).
        writeSync(this.#in, `${JSON.stringify({ [how]: command, arguments: args, id })}\n`)
      ).pipe(
        Effect.andThen(Deferred.await(waiting)),
        Effect.timeoutOrElse({ duration: ANSWER_MS, orElse: () => Effect.succeed(false) }),
        // Full, or QEMU has gone.
        Effect.orElseSucceed(() => false),
        Effect.ensuring(Effect.sync(() => this.#waiting.delete(id)))
      )
    })
  }

  end = (): void => {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#socket.destroy()
    closeSync(this.#in)
    this.#onEnd()
  }
}

const parsed = (line: string): Readonly<Record<string, unknown>> => {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === "object" && value !== null ? { ...value } : {}
  } catch {
    return {}
  }
}

/**
 * Open it; null when the machine's QEMU has none. It reads, and drops, what QEMU tells of itself there, which would fill
 * QEMU's own memory otherwise, until QEMU ends or the scope does.
 */
export const openRescue = Effect.fnUntraced(function* (paths: MachinePaths, host: Scope.Scope) {
  const scope = yield* Scope.fork(host)
  const statuses = yield* Queue.sliding<string>(STATUSES_KEPT)
  const rescue = open(paths, statuses, () => Effect.runFork(Scope.close(scope, Exit.void)))
  if (rescue === null) yield* Scope.close(scope, Exit.void)
  else yield* Scope.addFinalizer(scope, Effect.sync(rescue.end))
  return rescue === null ? null : { rescue, scope }
})

const open = ({ rescue }: MachinePaths, statuses: Queue.Queue<string>, onEnd: () => void): Rescue | null => {
  let input: number | null = null
  try {
    // Fails when nobody reads it: QEMU has ended.
    input = openSync(`${rescue}.in`, constants.O_WRONLY | constants.O_NONBLOCK)
    const output = openSync(`${rescue}.out`, constants.O_RDONLY | constants.O_NONBLOCK)
    return new Rescue(input, output, statuses, onEnd)
  } catch {
    if (input !== null) closeSync(input)
    return null
  }
}
