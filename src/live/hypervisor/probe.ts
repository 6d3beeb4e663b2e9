/** What this host's QEMU can do, found out by letting it do it. */
import { execFile } from "node:child_process"
import { constants } from "node:fs"
import { access, lstat, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import os from "node:os"
import path from "node:path"
import { Duration, Effect } from "effect"
import { HypervisorError } from "../../kernel/ports/hypervisor.ts"
import { SANDBOX } from "./command-line.ts"
import { boundToUs, end, runTool } from "./tools.ts"

export interface Probe {
  readonly version: string
  /** Those that booted a machine, the fastest first. */
  readonly accelerators: ReadonlyArray<string>
  readonly machines: ReadonlyArray<string>
  /** What `q35` and other names without a version stand for in this QEMU. */
  readonly aliases: Readonly<Record<string, string>>
  /** Those that can be given whole, by the fastest accelerator and this host's CPU. */
  readonly cpuModels: ReadonlyArray<string>
  /** What the others lack. */
  readonly cpuMissing: Readonly<Record<string, ReadonlyArray<string>>>
  readonly sandbox: boolean
  /** Whether machines may arrive here by post-copy. */
  readonly postCopy: boolean
}

/**
 * KVM is used where it does not take longer than TCG did just before it, by more than this. A KVM that is itself
 * emulated opens, and runs, some 40 times slower than TCG; a limit in seconds alone lets it through on a fast machine.
 */
const kvmBootMs = (tcgMs: number): number => Math.ceil(2 * tcgMs) + 500
/** A neighbour that takes the CPU for a moment must not cost a host its KVM. */
const KVM_TRIES = 2
const TCG_BOOT_MS = 20_000
const QUESTION_MS = 20_000
/** isa-debug-exit ends QEMU with (value << 1) | 1. */
const EXIT_VALUE = 0x2a
const EXIT_STATUS = (EXIT_VALUE << 1) | 1

const BOOT_LOOPS = 20_000_000

/** Counts `ecx` down from BOOT_LOOPS, then mov al, EXIT_VALUE; out 0xf4, al; hlt; jmp to hlt – and a boot sector's mark. */
const bootSector = (): Buffer => {
  const sector = Buffer.alloc(512)
  sector.set([0x66, 0xb9, 0, 0, 0, 0, 0x66, 0x49, 0x75, 0xfc])
  sector.writeUInt32LE(BOOT_LOOPS, 2)
  sector.set([0xb0, EXIT_VALUE, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd], 10)
  sector.writeUInt16LE(0xaa55, 510)
  return sector
}

/** Whether a machine with these arguments gets through its firmware and runs its boot sector in time. */
const boots = (binary: string, sector: string, args: ReadonlyArray<string>, timeoutMs: number) =>
  Effect.callback<boolean>((resume) => {
    const child = execFile(
      ...boundToUs(binary, [
        ...["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-m", "16"],
        ...["-device", "isa-debug-exit,iobase=0xf4,iosize=1"],
        ...["-drive", `file=${sector.replaceAll(",", ",,")},format=raw,if=floppy,readonly=on`],
        ...args
      ]),
      { timeout: timeoutMs, killSignal: "SIGKILL" },
      (error) => resume(Effect.succeed(error?.code === EXIT_STATUS))
    )
    return Effect.sync(() => end(child))
  })

const canOpen = (file: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    access(file, constants.R_OK | constants.W_OK).then(
      () => true,
      () => false
    )
  )

const CAP_SYS_PTRACE = 19n

/** Post-copy fetches pages by userfaultfd; the kernel may keep that for the privileged (its sysctl/vm.rst). */
export const mayUserfault = Effect.promise(async () => {
  const read = (file: string) => readFile(file, "utf8").catch(() => "")
  if ((await read("/proc/sys/vm/unprivileged_userfaultfd")).trim() === "1") return true
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(await read("/proc/self/status"))?.[1] ?? "0"
  return ((BigInt(`0x${effective}`) >> CAP_SYS_PTRACE) & 1n) === 1n
})

const folderPrefix = "novacron-probe-"
const folderLifeMs = 10 * 60_000

/** A process that was killed while it probed left its folder. */
async function removeOldFolders(): Promise<void> {
  const all = await readdir(os.tmpdir()).catch(() => [])
  for (const name of all.filter((one) => one.startsWith(folderPrefix))) {
    const folder = path.join(os.tmpdir(), name)
    const found = await lstat(folder).catch(() => null)
    const isOurs = found?.isDirectory() === true && found.uid === process.getuid?.()
    if (isOurs && Date.now() - found.mtimeMs > folderLifeMs)
      await rm(folder, { recursive: true, force: true }).catch(() => undefined)
  }
}

const sectorFile = Effect.acquireRelease(
  Effect.promise(async () => {
    await removeOldFolders()
    const folder = await mkdtemp(path.join(os.tmpdir(), folderPrefix))
    await writeFile(path.join(folder, "sector"), bootSector())
    return folder
  }),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

interface CpuDefinition {
  readonly name: string
  readonly missing: ReadonlyArray<string>
}

/** What `query-cpu-definitions` says of each CPU model, when machines run with this accelerator. */
const cpuDefinitions = (binary: string, accelerator: string) => {
  const quiet = ["-nodefaults", "-no-user-config", "-display", "none"]
  const args = [...quiet, "-machine", `none,accel=${accelerator}`, "-qmp", "stdio"]
  const commands = ["qmp_capabilities", "query-cpu-definitions", "quit"]
  const input = commands.map((execute) => `${JSON.stringify({ execute })}\n`).join("")
  return Effect.map(runTool(binary, args, QUESTION_MS, input), (said) => said.split("\n").flatMap(cpuAnswer))
}

/** The models in a line of QEMU's, when it is the answer that has them. */
function cpuAnswer(line: string): ReadonlyArray<CpuDefinition> {
  if (!line.includes('"typename"')) return []
  const { return: models } = JSON.parse(line) as { return: ReadonlyArray<Record<string, unknown>> }
  return models.map((model) => ({
    name: String(model["name"]),
    missing: (model["unavailable-features"] ?? []) as ReadonlyArray<string>
  }))
}

/** The first words of the lines of a `help` listing, without its headings. */
const firstWords = (text: string, line: RegExp): ReadonlyArray<string> =>
  text.split("\n").flatMap((each) => line.exec(each)?.[1] ?? [])

const probeAll = Effect.fn("probe")(function* (binary: string, wanted: ReadonlyArray<string>) {
  const sector = path.join(yield* sectorFile, "sector")
  const ask = (args: ReadonlyArray<string>) => runTool(binary, args, QUESTION_MS)
  const [version, machines] = yield* Effect.all([ask(["--version"]), ask(["-machine", "help"])], {
    concurrency: 1
  })
  const [tcgTook, tcg] = yield* Effect.timed(
    boots(binary, sector, ["-accel", "tcg,thread=multi"], TCG_BOOT_MS)
  )
  const kvmMs = kvmBootMs(Duration.toMillis(tcgTook))
  const bootsWithKvm = boots(binary, sector, ["-accel", "kvm"], kvmMs).pipe(
    Effect.repeat({ until: (booted) => booted, times: KVM_TRIES - 1 })
  )
  const sandbox =
    tcg && (yield* boots(binary, sector, ["-accel", "tcg,thread=multi", "-sandbox", SANDBOX], TCG_BOOT_MS))
  const kvm = wanted.includes("kvm") && (yield* canOpen("/dev/kvm")) && (yield* bootsWithKvm)
  const accelerators = [...(kvm ? ["kvm"] : []), ...(tcg && wanted.includes("tcg") ? ["tcg"] : [])]
  const cpus = accelerators[0] === undefined ? [] : yield* cpuDefinitions(binary, accelerators[0])
  const lacking = cpus.filter((cpu) => cpu.missing.length > 0)
  return {
    version: /version (\S+)/.exec(version)?.[1] ?? "unknown",
    accelerators,
    machines: firstWords(machines, /^(\S+) +\S/).filter((name) => name !== "Supported"),
    aliases: Object.fromEntries(
      [...machines.matchAll(/^(\S+) .*\(alias of (\S+?)\)/gm)].map(([, alias, of]) => [alias, of])
    ) as Record<string, string>,
    cpuModels: cpus.filter((cpu) => cpu.missing.length === 0).map(({ name }) => name),
    cpuMissing: Object.fromEntries(lacking.map(({ name, missing }) => [name, missing])),
    sandbox,
    postCopy: yield* mayUserfault
  }
}, Effect.scoped)

/** Takes some 3 s at most on an idle machine. `wanted` are the accelerators that may be used. */
export const probe = (binary: string, wanted: ReadonlyArray<string>): Effect.Effect<Probe, HypervisorError> =>
  probeAll(binary, wanted).pipe(
    Effect.mapError(
      (cause) =>
        new HypervisorError({
          op: "probe",
          vm: "",
          code: "unsupported",
          reason: `${cause.program}: ${cause.reason}`
        })
    )
  )
