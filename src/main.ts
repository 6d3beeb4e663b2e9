/**
 * The composition root. Every command is parsed in one tree; `up` and `lab` only say what is to be run, and run here
 * after the parsing, with their own answer to signals and without having loaded a server for anyone's `--help`.
 */
import { Effect, Logger, Option, References } from "effect"
import { Command, Flag } from "effect/cli"
import { loadedConfigWith } from "./cli/connection.ts"
import { exitCodes, failure } from "./cli/exit.ts"
import { runCli, version } from "./cli/main.ts"
import type { Loaded } from "./live/config.ts"

type Server = (signal: AbortSignal) => Promise<void>

let server: Server | null = null

const levels = { debug: "Debug", info: "Info", warn: "Warn", error: "Error" } as const

const runUp =
  (loaded: Loaded): Server =>
  async (signal) => {
    const { up } = await import("./cli/up.ts")
    const { notify } = await import("./live/systemd.ts")
    const program = Effect.gen(function* () {
      const asked = Effect.callback<string>((resume) => {
        const stop = () => resume(Effect.succeed(String(signal.reason)))
        if (signal.aborted) stop()
        else signal.addEventListener("abort", stop)
      })
      // Asked to stop while it starts, it undoes what it has started.
      const node = yield* Effect.raceFirst(up(loaded, version()), Effect.as(asked, null))
      if (node === null) return
      yield* notify("--ready")
      const reason = yield* Effect.raceFirst(asked, node.broken)
      yield* node.stop(reason)
      yield* notify("--stopping")
    }).pipe(
      Effect.scoped,
      Effect.provideService(References.MinimumLogLevel, levels[loaded.config.system.log_level]),
      Effect.provide(Logger.layer([Logger.withConsoleError(Logger.formatJson)]))
    )
    await Effect.runPromise(program as Effect.Effect<void, unknown>)
  }

const runLab =
  (once: boolean, driver: "qemu" | "sim", nodes: number): Server =>
  async (signal) => {
    const { lab } = await import("./cli/lab.ts")
    const terminal = process.stdout.isTTY
    let width = 0
    const clearLine = () => {
      if (width > 0) process.stdout.write(`\r${" ".repeat(width)}\r`)
      width = 0
    }
    await lab(
      {
        once,
        driver,
        nodes,
        environment: process.env,
        print: (line) => {
          clearLine()
          process.stdout.write(`${line}\n`)
        },
        progress: terminal
          ? (text) => {
              process.stdout.write(`\r${text.padEnd(width)}`)
              width = text.length
            }
          : null
      },
      signal
    )
  }

const upCommand = Command.make(
  "up",
  {
    join: Flag.String("join").pipe(
      Flag.withDescription(
        "Node to join, [node@]host:port, or several with commas between, instead of cluster.join"
      ),
      Flag.withMetavar("ADDRESS"),
      Flag.optional
    ),
    joinTokenFile: Flag.String("join-token-file").pipe(
      Flag.withDescription(
        "File with the join token that the other node gave out, instead of cluster.join_token_file"
      ),
      Flag.withMetavar("FILE"),
      Flag.optional
    ),
    voter: Flag.Boolean("voter").pipe(
      Flag.withDescription("Take part in deciding, instead of cluster.voter"),
      Flag.optional
    ),
    gossip: Flag.Literals("gossip", ["auto", "on", "off"]).pipe(
      Flag.withDescription("Notice which nodes are there, instead of gossip.enable"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ join, joinTokenFile, voter, gossip }) {
    const given = [
      ["NOVACRON_CLUSTER_JOIN", join],
      ["NOVACRON_CLUSTER_JOIN_TOKEN_FILE", joinTokenFile],
      ["NOVACRON_CLUSTER_VOTER", Option.map(voter, String)],
      ["NOVACRON_GOSSIP_ENABLE", gossip]
    ] as const
    const set = given.flatMap(([name, value]) => (Option.isSome(value) ? [[name, value.value]] : []))
    server = runUp(yield* loadedConfigWith(Object.fromEntries(set)))
  })
).pipe(Command.withDescription("Run a node: with a kernel of its own, or joined to another node's"))

const watchLeaseCommand = Command.make(
  "watch-lease",
  {},
  Effect.fnUntraced(function* () {
    const { resolved } = yield* loadedConfigWith({})
    server = async (signal) => {
      const { watchLease } = await import("./live/fencing/watcher.ts")
      // Whoever starts it keeps it: where there is nothing to watch yet there will be.
      while (!signal.aborted) await watchLease(resolved.dataDir, signal)
    }
  })
).pipe(
  Command.withDescription(
    "Watch this host's lease beside its node, and end the machines that may start elsewhere when it runs out"
  )
)

const labCommand = Command.make(
  "lab",
  {
    once: Flag.Boolean("once").pipe(
      Flag.withDescription("End everything and exit after the tour"),
      Flag.withDefault(false)
    ),
    driver: Flag.Literals("driver", ["qemu", "sim"]).pipe(
      Flag.withDescription("sim: compute machines instead of running them; labelled as simulated"),
      Flag.withDefault("qemu")
    ),
    nodes: Flag.Int("nodes").pipe(
      Flag.withDescription("How many nodes, 2 to 7; from 3 on all of them decide together (driver qemu)"),
      Flag.withDefault(2)
    )
  },
  Effect.fnUntraced(function* ({ once, driver, nodes }) {
    if (nodes < 2 || nodes > 7) return yield* failure("usage", `--nodes is ${nodes}: allowed is from 2 to 7`)
    if (nodes > 2 && driver === "sim")
      return yield* failure(
        "usage",
        "--nodes excludes --driver sim: simulated hosts live with their only kernel"
      )
    server = runLab(once, driver, nodes)
  })
).pipe(Command.withDescription("Nodes on this machine, a guest, and its live move from one to another"))

/** Run it until it ends, or until a signal asks it to; a second signal does not wait. */
async function serve(run: Server): Promise<number> {
  const controller = new AbortController()
  const stop = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(130)
    controller.abort(name)
  }
  process.on("SIGINT", stop)
  process.on("SIGTERM", stop)
  try {
    await run(controller.signal)
    return exitCodes.success
  } catch (error) {
    if (controller.signal.aborted) return exitCodes.success
    process.stderr.write(`novacron: ${error instanceof Error ? error.message : String(error)}\n`)
    return exitCodeOf(error)
  }
}

const damages: ReadonlySet<string> = new Set(["StoreDamaged", "StoreUnsupported"])

/** Told by tag: the class would load the server for every command. */
function exitCodeOf(error: unknown): number {
  const { _tag, tag } = error as { readonly _tag?: unknown; readonly tag?: unknown }
  if (_tag === "UpError") return exitCodes.usage
  if (_tag !== "StartUpFailed") return exitCodes.failure
  return typeof tag === "string" && damages.has(tag) ? exitCodes.damaged : exitCodes.notStarted
}

const parsed = await runCli(process.argv.slice(2), {
  up: upCommand,
  lab: labCommand,
  "watch-lease": watchLeaseCommand
})
process.exitCode = server === null ? parsed : await serve(server)
