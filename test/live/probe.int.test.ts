/** Whether KVM is used: not where it is slower than emulation, as one is that is itself emulated. */
import assert from "node:assert/strict"
import { accessSync, chmodSync, constants, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { Effect } from "effect"
import { probe } from "../../src/live/hypervisor/probe.ts"

const canOpen = (() => {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
})()
const skip = canOpen ? false : "there is no /dev/kvm that can be opened here"

/** A QEMU whose KVM is its emulation, begun so many seconds later. */
function qemuWithKvmAfter(folder: string, seconds: number): string {
  const file = join(folder, `qemu-${seconds}`)
  const script = `#!/bin/bash
args=(); late=0
for arg in "$@"; do
  case "$arg" in kvm) args+=(tcg,thread=multi); late=${seconds} ;; none,accel=kvm) args+=(none,accel=tcg) ;; *) args+=("$arg") ;; esac
done
sleep "$late"
exec qemu-system-x86_64 "\${args[@]}"
`
  writeFileSync(file, script)
  chmodSync(file, 0o755)
  return file
}

for (const [what, seconds, accelerators] of [
  ["as fast as emulation is used first", 0, ["kvm", "tcg"]],
  // It would have booted a sector within any limit in whole seconds.
  ["far slower than emulation is not used", 2, ["tcg"]]
] as const)
  test(`a KVM that is ${what}`, { skip }, async () => {
    const folder = mkdtempSync(join(tmpdir(), "novacron-kvm-"))
    try {
      const found = await Effect.runPromise(probe(qemuWithKvmAfter(folder, seconds), ["kvm", "tcg"]))
      assert.deepEqual(found.accelerators, accelerators)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
