/** The style law. What it enforces and what STYLE.md says are the same; change both or neither. */
import assert from "node:assert/strict"
import { globSync, readdirSync, readFileSync } from "node:fs"
import { join, posix } from "node:path"
import { test } from "node:test"
import { pathToFileURL } from "node:url"
import { isActorKind, lintChart } from "./tidy/charts.ts"
import { rules } from "./tidy/rules.ts"
import { parse } from "./tidy/source.ts"
import { worldsDifference } from "./tidy/tree.ts"

const root = join(import.meta.dirname, "..")

/** Made by tools, or not of the repository: the same as in .gitignore. */
const notRead = new Set(["node_modules", "dist", ".git", ".novacron"])
const notReadEnds = [".tgz", ".log", ".cpuprofile", ".heapprofile"]

/** Every file by its path from the root; binary files count as empty. */
function readRepository(): Map<string, string> {
  const files = new Map<string, string>()
  const read = (folder: string): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = posix.join(folder, entry.name)
      if (notRead.has(entry.name) || notReadEnds.some((end) => entry.name.endsWith(end))) continue
      if (entry.isDirectory()) read(path)
      if (!entry.isFile()) continue
      const text = readFileSync(join(root, path), "utf8")
      files.set(path, text.includes("\0") ? "" : text)
    }
  }
  read("")
  return files
}

const repository = parse(readRepository())

for (const [name, rule] of Object.entries(rules)) {
  test(`the repository keeps the rule: ${name}`, () => {
    const found = rule(repository).map(
      ({ path, line, message }) => `${path}${line > 0 ? `:${line}` : ""}: ${message}`
    )
    assert.equal(found.length, 0, `\n${found.join("\n")}\n`)
  })
}

test("the two worlds have the same ports, or say which they lack", (t) => {
  for (const line of worldsDifference(repository.files)) t.diagnostic(line)
})

for (const path of globSync("src/actors/*/chart.ts", { cwd: root }).toSorted()) {
  const name = path.split("/")[2] ?? ""
  test(`the chart of ${name} keeps the actor contract`, async () => {
    const module = (await import(pathToFileURL(join(root, path)).href)) as Record<string, unknown>
    const kind = module[`${name}Actor`]
    assert.ok(isActorKind(kind), `${path} has to export ${name}Actor, an ActorKind`)
    const found = lintChart(kind)
    assert.equal(found.length, 0, `\n${found.join("\n")}\n`)
  })
}
