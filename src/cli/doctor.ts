/** `novacron doctor`: whether this machine can be a node, each point with what to do about it. */
import { access, constants, statfs } from "node:fs/promises"
import { createServer } from "node:net"
import { dirname } from "node:path"
import { Clock, Effect, Result } from "effect"
import { Command } from "effect/cli"
import type { Loaded } from "../live/config.ts"
import { loadedConfig } from "./connection.ts"
import { failure } from "./exit.ts"
import { output } from "./output.ts"

export interface Finding {
  readonly check: string
  readonly result: "ok" | "warn" | "fail"
  readonly found: string
  /** What to do; empty when it is ok. */
  readonly advice: string
}

const ok = (check: string, found: string): Finding => ({ check, result: "ok", found, advice: "" })
const warn = (check: string, found: string, advice: string): Finding => ({
  check,
  result: "warn",
  found,
  advice
})
const fail = (check: string, found: string, advice: string): Finding => ({
  check,
  result: "fail",
  found,
  advice
})

const nodeMajor_min = 24

function nodeVersion(): Finding {
  const { node } = process.versions
  return Number(node.split(".")[0]) >= nodeMajor_min
    ? ok("node", node)
    : fail("node", node, `run it with Node ${nodeMajor_min}: npm ci brings one in node_modules/node`)
}

/** Machines are booted, for real, with each accelerator; some seconds. */
const hypervisor = Effect.fnUntraced(function* ({ config }: Loaded) {
  if (config.hypervisor.driver === "sim") {
    return [warn("hypervisor", "sim: no machine really runs", "set hypervisor.driver to qemu for real ones")]
  }
  const { probe } = yield* Effect.promise(() => import("../live/hypervisor/probe.ts"))
  const probed = yield* probe("qemu-system-x86_64", ["kvm", "tcg"]).pipe(Effect.result)
  if (Result.isFailure(probed)) {
    return [fail("qemu", probed.failure.reason, "install it: apt-get install qemu-system-x86 qemu-utils")]
  }
  const { version, accelerators, sandbox, postCopy } = probed.success
  return [
    accelerators.includes("tcg")
      ? ok("qemu", `${version}, boots a machine`)
      : fail("qemu", `${version} boots no machine`, "run qemu-system-x86_64 -machine pc by hand and see why"),
    accelerators.includes("kvm")
      ? ok("kvm", "boots a machine")
      : warn(
          "kvm",
          "boots no machine: machines are emulated, slowly",
          "turn virtualisation on in the firmware, load kvm_intel or kvm_amd, and let this user open /dev/kvm"
        ),
    sandbox
      ? ok("sandbox", "QEMU runs in its system-call sandbox")
      : warn("sandbox", "QEMU without its sandbox", "use a QEMU built with seccomp"),
    postCopy
      ? ok("post-copy", "machines may arrive by it")
      : warn("post-copy", "not allowed by the kernel", "sysctl -w vm.unprivileged_userfaultfd=1")
  ]
})

const isFree = (host: string, port: number) =>
  Effect.callback<string | null>((resume) => {
    const server = createServer()
    server.once("error", (error: NodeJS.ErrnoException) =>
      resume(Effect.succeed(error.code ?? error.message))
    )
    server.listen({ host, port, exclusive: true }, () => server.close(() => resume(Effect.succeed(null))))
    return Effect.sync(() => void server.close())
  })

const ports = Effect.fnUntraced(function* ({ config, resolved }: Loaded) {
  const wanted = [
    ...(resolved.socket === null && config.api.enable
      ? [{ name: "api", key: "api.port", host: config.api.listen_address, port: config.api.port }]
      : []),
    {
      name: "link",
      key: "network.bind_port",
      host: config.network.listen_address,
      port: config.network.bind_port
    }
  ]
  return yield* Effect.forEach(wanted, ({ name, key, host, port }) =>
    Effect.map(isFree(host, port), (trouble) => {
      const check = `${name} port`
      if (trouble === null) return ok(check, `${host}:${port} is free`)
      return trouble === "EADDRINUSE"
        ? warn(check, `${host}:${port} is in use`, `fine if a node runs here; else choose another ${key}`)
        : fail(
            check,
            `${host}:${port}: ${trouble}`,
            `choose an address of this machine and a port it may use in ${key}`
          )
    })
  )
})

const diskBytes_min = 1024 ** 3

/** The nearest folder that is there: the data folder itself may not be made yet. */
async function existing(path: string): Promise<string> {
  try {
    await access(path, constants.F_OK)
    return path
  } catch {
    return path === dirname(path) ? path : existing(dirname(path))
  }
}

const disk = ({ resolved }: Loaded) =>
  Effect.promise(async (): Promise<Finding> => {
    const folder = await existing(resolved.dataDir)
    try {
      await access(folder, constants.W_OK)
      const { bavail, bsize } = await statfs(folder)
      const free = Number(bavail) * Number(bsize)
      const shown = `${resolved.dataDir}, ${(free / 1024 ** 3).toFixed(1)} GiB free`
      return free >= diskBytes_min
        ? ok("disk", shown)
        : fail("disk", shown, "make room, or choose another system.data_dir")
    } catch (error) {
      const advice = "choose a system.data_dir that this user may write, or give it the right"
      return fail("disk", `${resolved.dataDir}: ${(error as Error).message}`, advice)
    }
  })

/** Times before this release were never; a clock that is set back breaks certificates first. */
const earliestMs = Date.UTC(2026, 0, 1)

const clock = Effect.gen(function* () {
  const wallMs = yield* Clock.currentTimeMillis
  const shown = new Date(wallMs).toISOString()
  return wallMs >= earliestMs
    ? ok("clock", shown)
    : fail("clock", `${shown} is in the past`, "set the time and let NTP keep it: timedatectl set-ntp true")
})

const findings = Effect.gen(function* () {
  const loaded = yield* loadedConfig.pipe(Effect.result)
  const first = [nodeVersion(), yield* clock]
  if (Result.isFailure(loaded)) {
    return [
      ...first,
      fail("config", loaded.failure.reason, "mend it; novacron config generate writes a good one")
    ]
  }
  const at = loaded.success
  return [
    ...first,
    ok("config", at.file ?? "the defaults"),
    ...(yield* ports(at)),
    yield* disk(at),
    ...(yield* hypervisor(at))
  ]
})

export const doctor = Command.make(
  "doctor",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    to.progress("looking; machines are booted to see whether they do…")
    const found = yield* findings
    to.progress(null)
    const colour = { ok: "green", warn: "yellow", fail: "red" } as const
    to.either(found, () => {
      for (const { check, result, found: seen, advice } of found) {
        if (to.isPlain) to.line([result, check, seen, advice].join("\t"))
        else
          to.line(
            `${to.paint(result.padEnd(4), colour[result])}  ${check}: ${seen}${advice === "" ? "" : `\n      ${advice}`}`
          )
      }
    })
    const failed = found.filter(({ result }) => result === "fail").map(({ check }) => check)
    if (failed.length > 0)
      return yield* failure("failure", `this machine can't be a node: ${failed.join(", ")}`)
  })
).pipe(Command.withDescription("See whether this machine can be a node, and what to do when it can't"))
