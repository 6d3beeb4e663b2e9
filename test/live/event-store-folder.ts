/** A folder of its own for the files of a store; removed at the end. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "novacron-store-"))
  try {
    await use(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** With the path of a store in it. */
export const withPath = (use: (path: string) => Promise<void>): Promise<void> =>
  inFolder((folder) => use(join(folder, "events.db")))
