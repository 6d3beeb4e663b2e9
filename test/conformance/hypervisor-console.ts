/** The part of the hypervisors' suite that is about consoles. */
import assert from "node:assert/strict"
import { test } from "node:test"
import type { Effect } from "effect"
import { arrival } from "./arrival.ts"
import type { Channel, MigrationPolicy } from "../../src/events/requests.ts"
import type { VmSpec } from "../../src/events/vm.ts"
import type { Hypervisor, HypervisorError } from "../../src/kernel/ports/hypervisor.ts"

type Driver = Hypervisor["Service"]

/** A connection to where the driver says that the console is. */
export interface GuestConsole {
  readonly text: () => string
  readonly hasEnded: () => boolean
  readonly type: (text: string) => void
  readonly close: () => void
}

interface ConsoleHost {
  readonly openConsole: (vm: string) => Promise<GuestConsole>
}

type Ask<A> = (driver: Driver) => Effect.Effect<A, HypervisorError>

/** What these tests need of the suite's bench. */
interface ConsoleBench<Host> {
  readonly hosts: {
    readonly source: Host
    readonly destination: Host
    readonly spec: (options: { readonly disk: "none" }) => VmSpec
  }
  readonly do: <A>(host: Host, operation: Ask<A>) => Promise<A>
  readonly refused: (host: Host, operation: Ask<unknown>) => Promise<HypervisorError>
  readonly until: (what: string, holds: () => boolean) => Promise<void>
  readonly ticking: (host: Host, vm: string) => Promise<number>
  readonly boot: (host: Host, vm: string, spec: VmSpec) => Promise<void>
  readonly remove: (host: Host, vm: string) => Promise<void>
  readonly migrate: (
    vm: string,
    channels: ReadonlyArray<Channel>,
    policy: MigrationPolicy
  ) => Promise<{ readonly error: HypervisorError | null }>
}

/** Type a line until it comes back: a guest that just boots may not listen yet. */
const answers = (b: Pick<ConsoleBench<never>, "until">, console: GuestConsole, word: string): Promise<void> =>
  b.until(`the console says ${word}`, () => {
    if (console.text().includes(word)) return true
    console.type(`${word}\n`)
    return false
  })

export const consoleTests = <Host extends ConsoleHost>(
  bench: () => ConsoleBench<Host>,
  policy: MigrationPolicy,
  migration: string
): void => {
  test("a console gives back what is typed, to one after the other, and ends with the machine", async () => {
    const b = bench()
    const host = b.hosts.source
    const unknown = await b.refused(host, (driver) => driver.console("nobody"))
    assert.equal(unknown.code, "not-found")
    await b.do(host, (driver) => driver.define("tty", b.hosts.spec({ disk: "none" })))
    assert.equal((await b.refused(host, (driver) => driver.console("tty"))).code, "wrong-state")
    await b.do(host, (driver) => driver.start("tty"))
    await b.ticking(host, "tty")
    const first = await host.openConsole("tty")
    await answers(b, first, "first-word")
    first.close()
    const second = await host.openConsole("tty")
    await answers(b, second, "second-word")
    await b.do(host, (driver) => driver.stop("tty", { force: true }))
    await b.until("the console has ended", second.hasEnded)
    assert.equal((await b.refused(host, (driver) => driver.console("tty"))).code, "wrong-state")
    await b.remove(host, "tty")
  })

  test("the console of an arriving machine can be opened before it runs, and answers once it does", async () => {
    const b = bench()
    const { source, destination } = b.hosts
    const spec = b.hosts.spec({ disk: "none" })
    await b.boot(source, "roam", spec)
    const before = await source.openConsole("roam")
    await answers(b, before, "at-the-source")
    const channels = await b.do(destination, (driver) =>
      driver.prepareIncoming("roam", spec, arrival(migration))
    )
    const after = await destination.openConsole("roam")
    assert.equal((await b.migrate("roam", channels, policy)).error, null)
    await b.do(destination, (driver) => driver.resume("roam"))
    await answers(b, after, "at-the-destination")
    assert.ok(!before.text().includes("at-the-destination"))
    await b.remove(source, "roam")
    await b.until("the source's console has ended", before.hasEnded)
    assert.ok(!after.hasEnded())
    after.close()
    await b.remove(destination, "roam")
  })
}
