/**
 * What every hypervisor driver does, in every world. A world brings two hosts that can reach each other's channel
 * sockets directly, and the means to look at a guest from outside.
 */
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { Effect, Exit, Schema, Stream } from "effect"
import { arrival } from "./arrival.ts"
import { HostFacts } from "../../src/events/host.ts"
import type { Channel, MigrationPolicy } from "../../src/events/requests.ts"
import type { VmSpec, VmState } from "../../src/events/vm.ts"
import { consoleTests } from "./hypervisor-console.ts"
import type { GuestConsole } from "./hypervisor-console.ts"
import type {
  Hypervisor,
  HypervisorError,
  MigrationReport,
  VmEnded
} from "../../src/kernel/ports/hypervisor.ts"

export type Driver = Hypervisor["Service"]

/** What the guest said since the watch began. Its counter rises for as long as it runs, over crashes too. */
export interface GuestWatch {
  readonly ticks: ReadonlyArray<{ readonly count: number; readonly atMs: number }>
  readonly close: () => void
}

export interface TestHost {
  readonly driver: () => Driver
  /** End the driver, not its machines; do `meanwhile`; start a new one over the same state. */
  readonly reopen: (meanwhile?: () => Promise<void>) => Promise<void>
  /** Everything that was told by `ended`, by all drivers of this host. */
  readonly ended: () => ReadonlyArray<VmEnded>
  /** The hypervisor of this machine dies, as by `kill -9`. */
  readonly kill: (vm: string) => Promise<void>
  /** The guest powers off by itself. */
  readonly powerOff: (vm: string) => Promise<void>
  readonly watch: (vm: string) => Promise<GuestWatch>
  readonly openConsole: (vm: string) => Promise<GuestConsole>
  /** A digest of the content of each disk, in the order of the specification; the guest must stand still. */
  readonly diskDigests: (vm: string) => Promise<ReadonlyArray<string>>
}

export interface TwoHosts {
  readonly source: TestHost
  readonly destination: TestHost
  /** A guest that ticks. `dirtyMibPerSecond`: it keeps rewriting its memory. */
  readonly spec: (options: {
    readonly disk: "none" | "local" | "shared"
    readonly dirtyMibPerSecond?: number
  }) => VmSpec
  readonly run: <A, E>(effect: Effect.Effect<A, E>) => Promise<A>
  /** Let so much of this world's time go by. */
  readonly pass: (ms: number) => Promise<void>
  readonly close: () => Promise<void>
}

const POLICY: MigrationPolicy = {
  downtimeBudgetMs: 1_000,
  bandwidthBytesPerSecond: 0,
  postCopy: false,
  throttle: true,
  timeoutMs: 60_000
}
/** So slow that a migration is under way for long. */
const SLOW: MigrationPolicy = { ...POLICY, bandwidthBytesPerSecond: 2 * 1024 * 1024 }
const WAIT_MS = 30_000
const STEP_MS = 20

class Bench {
  readonly hosts: TwoHosts

  constructor(hosts: TwoHosts) {
    this.hosts = hosts
  }

  do<A>(host: TestHost, operation: (driver: Driver) => Effect.Effect<A, HypervisorError>): Promise<A> {
    return this.hosts.run(operation(host.driver()))
  }

  state(host: TestHost, vm: string): Promise<VmState> {
    return this.do(host, (driver) => driver.observe(vm))
  }

  async refused(
    host: TestHost,
    operation: (driver: Driver) => Effect.Effect<unknown, HypervisorError>
  ): Promise<HypervisorError> {
    const exit = await this.hosts.run(Effect.exit(Effect.flip(operation(host.driver()))))
    assert.ok(Exit.isSuccess(exit), "the operation was not refused")
    return exit.value
  }

  async until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
    for (let waitedMs = 0; waitedMs < WAIT_MS; waitedMs += STEP_MS) {
      if (await holds()) return
      await this.hosts.pass(STEP_MS)
    }
    assert.fail(`not within ${WAIT_MS} ms: ${what}`)
  }

  /** Wait until the guest has ticked `count` times more; gives its counter. */
  async ticking(host: TestHost, vm: string, count = 10): Promise<number> {
    const watch = await host.watch(vm)
    try {
      await this.until(`${vm} ticks`, () => watch.ticks.length >= count)
      assertRising(watch)
      return watch.ticks.at(-1)?.count ?? 0
    } finally {
      watch.close()
    }
  }

  async boot(host: TestHost, vm: string, spec: VmSpec): Promise<void> {
    await this.do(host, (driver) => driver.define(vm, spec))
    await this.do(host, (driver) => driver.start(vm))
    await this.ticking(host, vm)
  }

  remove(host: TestHost, vm: string): Promise<void> {
    return this.do(host, (driver) => driver.remove(vm))
  }

  /** All reports of a migration, and how it ended. */
  arriving() {
    return this.do(this.hosts.destination, (driver) => driver.arriving)
  }

  async migrate(
    vm: string,
    channels: ReadonlyArray<Channel>,
    policy: MigrationPolicy,
    onReport: (report: MigrationReport) => void = () => undefined
  ): Promise<{ readonly reports: ReadonlyArray<MigrationReport>; readonly error: HypervisorError | null }> {
    const reports: Array<MigrationReport> = []
    const all = this.hosts.source
      .driver()
      .migrate(vm, MIGRATION, channels, policy)
      .pipe(
        Stream.runForEach((report) =>
          Effect.sync(() => {
            reports.push(report)
            onReport(report)
          })
        ),
        Effect.match({ onFailure: (cause) => cause, onSuccess: () => null })
      )
    const error = await this.hosts.run(all)
    return { reports, error }
  }

  /** A migration that is under way for long; `when` is called once memory is being sent. */
  async underWay(vm: string, when: () => Promise<void>) {
    const { source, destination } = this.hosts
    const spec = this.hosts.spec({ disk: "local", dirtyMibPerSecond: 8 })
    await this.boot(source, vm, spec)
    const channels = await this.do(destination, (driver) =>
      driver.prepareIncoming(vm, spec, arrival(MIGRATION))
    )
    const called: Array<Promise<void>> = []
    const result = await this.migrate(vm, channels, SLOW, (report) => {
      const sending = report.type === "hypervisor.progressed" && report.progress.phase === "pre-copy"
      if (sending && called.length === 0) called.push(when())
    })
    assert.equal(called.length, 1)
    await Promise.all(called)
    return result
  }
}

const MIGRATION = "move-1"

const assertRising = (watch: GuestWatch): void => {
  watch.ticks.forEach((tick, index) => {
    const previous = watch.ticks[index - 1]
    assert.ok(previous === undefined || tick.count > previous.count, "the guest's counter went back")
  })
}

const assertReports = (reports: ReadonlyArray<MigrationReport>): void => {
  const types = reports.map((report) => report.type)
  assert.equal(types.filter((type) => type === "hypervisor.handedOver").length, 1)
  assert.equal(types.at(-1), "hypervisor.migrated")
  let percent = 0
  for (const report of reports) {
    if (report.type !== "hypervisor.progressed") continue
    assert.ok(report.progress.percent >= percent, "percent went back")
    percent = report.progress.percent
  }
}

const lifecycleTests = (bench: () => Bench): void => {
  test("facts are complete, and what is not there is absent", async () => {
    const { source } = bench().hosts
    Schema.decodeUnknownSync(HostFacts)(await bench().do(source, (driver) => driver.facts))
    assert.equal(await bench().state(source, "nobody"), "absent")
    const error = await bench().refused(source, (driver) => driver.start("nobody"))
    assert.equal(error.code, "not-found")
    await bench().remove(source, "nobody")
  })

  test("a machine is defined, started, paused, resumed, rebooted, stopped and removed; asking twice is asking once", async () => {
    const b = bench()
    const host = b.hosts.source
    const spec = b.hosts.spec({ disk: "local" })
    const twice = async (operation: (driver: Driver) => Effect.Effect<unknown, HypervisorError>) => {
      await b.do(host, operation)
      await b.do(host, operation)
    }
    await twice((driver) => driver.define("web", spec))
    assert.equal(await b.state(host, "web"), "defined")
    await twice((driver) => driver.start("web"))
    assert.equal(await b.state(host, "web"), "running")
    assert.deepEqual(await b.do(host, (driver) => driver.list), [{ vm: "web", state: "running" }])
    const first = await b.ticking(host, "web")
    assert.ok((await b.do(host, (driver) => driver.console("web"))).length > 0)

    await twice((driver) => driver.pause("web"))
    assert.equal(await b.state(host, "web"), "paused")
    const watch = await host.watch("web")
    await b.hosts.pass(100)
    const still = watch.ticks.length
    await b.hosts.pass(300)
    assert.equal(watch.ticks.length, still)
    watch.close()
    await twice((driver) => driver.resume("web"))
    const second = await b.ticking(host, "web")
    assert.ok(second > first)

    await b.do(host, (driver) => driver.reboot("web"))
    assert.ok((await b.ticking(host, "web", 50)) > second)
    await twice((driver) => driver.stop("web", { force: false }))
    assert.equal(await b.state(host, "web"), "defined")
    assert.equal((await b.refused(host, (driver) => driver.pause("web"))).code, "wrong-state")
    await twice((driver) => driver.remove("web"))
    assert.equal(await b.state(host, "web"), "absent")
    assert.deepEqual(host.ended(), [])
  })
}

const diskTests = (bench: () => Bench): void => {
  test("disks are put back to a snapshot, and copied into another machine", async () => {
    const b = bench()
    const host = b.hosts.source
    await b.boot(host, "db", b.hosts.spec({ disk: "local" }))
    await b.do(host, (driver) => driver.stop("db", { force: true }))
    const before = await host.diskDigests("db")
    const taken = await b.do(host, (driver) => driver.snapshot("db", "clean"))
    assert.ok(taken.bytes > 0)
    await b.do(host, (driver) => driver.start("db"))
    await b.ticking(host, "db", 50)
    await b.do(host, (driver) => driver.snapshot("db", "while-running"))
    await b.do(host, (driver) => driver.snapshot("db", "while-running"))
    assert.equal((await b.refused(host, (driver) => driver.restore("db", "clean"))).code, "wrong-state")
    await b.do(host, (driver) => driver.stop("db", { force: true }))
    assert.notDeepEqual(await host.diskDigests("db"), before)
    assert.equal((await b.refused(host, (driver) => driver.restore("db", "unknown"))).code, "not-found")
    await b.do(host, (driver) => driver.restore("db", "clean"))
    assert.deepEqual(await host.diskDigests("db"), before)
    const spec = b.hosts.spec({ disk: "local" })
    await b.do(host, (driver) => driver.define("copy", spec, { vm: "db" }))
    await b.do(host, (driver) => driver.define("late", spec, { vm: "db", snapshot: "while-running" }))
    assert.deepEqual(await host.diskDigests("copy"), before)
    assert.notDeepEqual(await host.diskDigests("late"), before)
    for (const vm of ["db", "copy", "late"]) await b.remove(host, vm)
  })
}

const endTests = (bench: () => Bench): void => {
  test("machines outlive the driver; an end nobody asked for is told once, also one that nobody saw", async () => {
    const b = bench()
    const host = b.hosts.source
    const told = () => host.ended().map(({ vm, cause }) => `${vm} ${cause}`)
    await b.boot(host, "cache", b.hosts.spec({ disk: "local" }))
    const first = await b.ticking(host, "cache")
    await host.reopen()
    assert.equal(await b.state(host, "cache"), "running")
    const second = await b.ticking(host, "cache")
    assert.ok(second > first)

    await host.kill("cache")
    await b.until("the crash is told", () => told().length > 0)
    assert.deepEqual(told(), ["cache crash"])
    assert.equal(await b.state(host, "cache"), "defined")
    await host.reopen()

    await b.do(host, (driver) => driver.start("cache"))
    assert.ok((await b.ticking(host, "cache")) > second)
    await host.reopen(() => host.kill("cache"))
    await b.until("the unseen crash is told", () => told().length > 1)

    await b.do(host, (driver) => driver.start("cache"))
    await b.ticking(host, "cache")
    await host.powerOff("cache")
    await b.until("the power-off is told", () => told().length > 2)
    await b.hosts.pass(200)
    assert.deepEqual(told(), ["cache crash", "cache crash", "cache guest-shutdown"])
    assert.equal(await b.state(host, "cache"), "defined")
    await b.remove(host, "cache")
  })
}

const migrationTests = (bench: () => Bench): void => {
  for (const disk of ["none", "local", "shared"] as const) {
    test(`a running machine moves (disk: ${disk}); its counter and its disks are what they were`, async () => {
      const b = bench()
      const { source, destination } = b.hosts
      const spec = b.hosts.spec({ disk })
      await b.boot(source, "app", spec)
      assert.deepEqual(await b.do(destination, (driver) => driver.checkIncoming("app", spec)), [])
      const channels = await b.do(destination, (driver) =>
        driver.prepareIncoming("app", spec, arrival(MIGRATION))
      )
      const again = await b.do(destination, (driver) =>
        driver.prepareIncoming("app", spec, arrival(MIGRATION))
      )
      assert.deepEqual(again, channels)
      assert.deepEqual(await b.arriving(), [{ vm: "app", ...arrival(MIGRATION), channels }])
      assert.deepEqual(
        channels.map((channel) => channel.name),
        disk === "local" ? ["ram", "data"] : ["ram"]
      )
      assert.equal(await b.state(destination, "app"), "incoming")
      const from = await source.watch("app")
      const to = await destination.watch("app")
      const { reports, error } = await b.migrate("app", channels, POLICY)
      assert.equal(error, null)
      assertReports(reports)
      assert.equal(await b.state(source, "app"), "handed-over")
      assert.equal(await b.state(destination, "app"), "incoming")
      if (disk === "local") {
        assert.deepEqual(await destination.diskDigests("app"), await source.diskDigests("app"))
      }
      assertReports((await b.migrate("app", channels, POLICY)).reports)
      const late = await b.refused(source, (driver) => driver.cancelMigration("app", MIGRATION))
      assert.equal(late.code, "wrong-state")

      await b.do(destination, (driver) => driver.resume("app"))
      await b.do(destination, (driver) => driver.resume("app"))
      await b.until("the guest ticks at the destination", () => to.ticks.length > 50)
      assertRising(to)
      await b.until("it has come whole", async () => (await b.arriving()).length === 0)
      assert.ok((to.ticks[0]?.count ?? 0) > (from.ticks.at(-1)?.count ?? Number.MAX_VALUE))
      from.close()
      to.close()
      await b.remove(source, "app")
      assert.equal(await b.state(destination, "app"), "running")
      await b.ticking(destination, "app")
      if (disk !== "none") {
        await destination.kill("app")
        await b.until("the crash is noticed", async () => (await b.state(destination, "app")) === "defined")
        await b.do(destination, (driver) => driver.start("app"))
        assert.ok((await b.ticking(destination, "app")) > (to.ticks.at(-1)?.count ?? 0))
      }
      await b.remove(destination, "app")
    })
  }
}

const refusalTests = (bench: () => Bench): void => {
  test("a host refuses, before anything begins, what the machine does not run on there", async () => {
    const b = bench()
    const { source, destination } = b.hosts
    const spec = b.hosts.spec({ disk: "none" })
    await b.boot(source, "picky", spec)
    const platform = await b.do(source, (driver) => driver.start("picky"))
    const check = (change: Partial<typeof platform>, asked = spec) =>
      b.do(destination, (driver) => driver.checkIncoming("picky", asked, { ...platform, ...change }))
    assert.deepEqual(await check({}), [])
    assert.match((await check({ accelerator: "warp" })).join(), /warp/)
    assert.match((await check({ machine: "pc-q35-99.0" })).join(), /pc-q35-99\.0/)
    assert.match((await check({}, { ...spec, cpuModel: "z80" })).join(), /z80/)
    assert.equal(await b.state(destination, "picky"), "absent")
    await b.remove(source, "picky")
  })
}

const failureTests = (bench: () => Bench): void => {
  test("a migration that is cancelled leaves the guest running at the source", async () => {
    const b = bench()
    const { source, destination } = b.hosts
    const cancel = () => b.do(source, (driver) => driver.cancelMigration("batch", MIGRATION))
    const { reports, error } = await b.underWay("batch", async () => {
      const other = await b.refused(source, (driver) => driver.pause("batch"))
      assert.equal(other.code, "wrong-state")
      await cancel()
    })
    assert.notEqual(error, null)
    assert.ok(reports.every((report) => report.type === "hypervisor.progressed"))
    await cancel()
    assert.equal(await b.state(source, "batch"), "running")
    await b.ticking(source, "batch")
    const abandon = () => b.do(destination, (driver) => driver.abandonIncoming("batch", MIGRATION))
    await abandon()
    await abandon()
    assert.equal(await b.state(destination, "batch"), "absent")
    await b.remove(source, "batch")
  })

  test("a destination that dies on the way leaves the guest running at the source; it can be tried again", async () => {
    const b = bench()
    const { source, destination } = b.hosts
    const { reports, error } = await b.underWay("queue", () => destination.kill("queue"))
    assert.equal(error?.code, "lost")
    assert.ok(reports.every((report) => report.type === "hypervisor.progressed"))
    assert.equal(await b.state(source, "queue"), "running")
    await b.ticking(source, "queue")
    assert.ok(destination.ended().every(({ vm }) => vm !== "queue"))

    const spec = b.hosts.spec({ disk: "local", dirtyMibPerSecond: 8 })
    const channels = await b.do(destination, (driver) =>
      driver.prepareIncoming("queue", spec, arrival(MIGRATION))
    )
    assertReports((await b.migrate("queue", channels, POLICY)).reports)
    // Taken back before the destination was let run.
    await b.do(destination, (driver) => driver.abandonIncoming("queue", MIGRATION))
    await b.do(source, (driver) => driver.resume("queue"))
    assert.equal(await b.state(source, "queue"), "running")
    await b.ticking(source, "queue")
    await b.remove(source, "queue")
  })
}

const limitTests = (bench: () => Bench): void => {
  test("a migration that can't converge within its budget fails in its time, and the guest stays", async () => {
    const b = bench()
    const { source, destination } = b.hosts
    const spec = b.hosts.spec({ disk: "none", dirtyMibPerSecond: 64 })
    await b.boot(source, "hot", spec)
    const channels = await b.do(destination, (driver) =>
      driver.prepareIncoming("hot", spec, arrival(MIGRATION))
    )
    const { error } = await b.migrate("hot", channels, { ...SLOW, throttle: false, timeoutMs: 2_000 })
    assert.equal(error?.code, "timeout")
    assert.equal(await b.state(source, "hot"), "running")
    await b.ticking(source, "hot")
    await b.do(destination, (driver) => driver.abandonIncoming("hot", MIGRATION))
    await b.remove(source, "hot")
  })

  test("another driver joins the migration that the first one began", async () => {
    const b = bench()
    const { source, destination } = b.hosts
    const spec = b.hosts.spec({ disk: "local" })
    await b.boot(source, "long", spec)
    const channels = await b.do(destination, (driver) =>
      driver.prepareIncoming("long", spec, arrival(MIGRATION))
    )
    let sending = false
    const first = b.migrate(
      "long",
      channels,
      { ...SLOW, bandwidthBytesPerSecond: 8 * 1024 * 1024 },
      (report) => {
        sending ||= report.type === "hypervisor.progressed" && report.progress.phase === "pre-copy"
      }
    )
    await b.until("memory is being sent", () => sending)
    await source.reopen()
    assert.equal((await first).error?.code, "lost")
    assert.equal(await b.state(source, "long"), "running")
    const { reports, error } = await b.migrate("long", channels, POLICY)
    assert.equal(error, null)
    assertReports(reports)
    await b.do(destination, (driver) => driver.resume("long"))
    await b.ticking(destination, "long")
    await b.remove(source, "long")
    await b.remove(destination, "long")
  })
}

/** Run the suite in one world. */
export const hypervisorConformance = (name: string, makeTwoHosts: () => Promise<TwoHosts>): void => {
  describe(`hypervisor: ${name}`, { concurrency: 1 }, () => {
    let made: Bench | null = null
    const bench = (): Bench => {
      assert.ok(made !== null)
      return made
    }
    before(async () => {
      made = new Bench(await makeTwoHosts())
    })
    after(async () => {
      await made?.hosts.close()
    })
    lifecycleTests(bench)
    consoleTests(bench, POLICY, MIGRATION)
    diskTests(bench)
    endTests(bench)
    migrationTests(bench)
    refusalTests(bench)
    failureTests(bench)
    limitTests(bench)
  })
}
