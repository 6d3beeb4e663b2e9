import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { stat } from "node:fs/promises"
import { test } from "node:test"
import { readFile } from "node:fs/promises"
import { gunzipSync } from "node:zlib"
import { buildLabGuest, cpio } from "../../src/live/lab-guest.ts"
import { LAB_CACHE } from "./qemu-hosts.ts"

const namesOf = (archive: Buffer): ReadonlyArray<string> =>
  execFileSync("cpio", ["--list", "--quiet"], { input: archive, encoding: "utf8" }).trim().split("\n")

test("the archive is one that cpio reads", () => {
  const archive = cpio([
    { name: "a", mode: 0o040755 },
    { name: "a/odd", mode: 0o100644, data: Buffer.from("12345") },
    { name: "a/empty", mode: 0o100644 }
  ])
  assert.deepEqual(namesOf(archive), ["a", "a/odd", "a/empty"])
})

test("building again does nothing, and the ramdisk holds the guest's init", async () => {
  const guest = await buildLabGuest({ cacheDir: LAB_CACHE })
  const before = await stat(guest.initrd)
  assert.deepEqual(await buildLabGuest({ cacheDir: LAB_CACHE }), guest)
  assert.equal((await stat(guest.initrd)).ino, before.ino)
  const names = namesOf(gunzipSync(await readFile(guest.initrd)))
  for (const name of ["init", "bin/busybox", "modules/order", "modules/virtio_blk.ko"]) {
    assert.ok(names.includes(name), name)
  }
})
