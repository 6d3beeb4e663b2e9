/** What the folders look like: names, the two worlds' nouns, links between documents. */
import { posix } from "node:path"
import type { Files, Problem, Rule } from "./source.ts"

const emptyNames = /^(?:.*[-_.])?(utils?|common|misc|helpers?)$/i

export const names: Rule = ({ files }) => {
  const problems: Array<Problem> = []
  for (const path of files.keys()) {
    const parts = path.split("/")
    const stems = [...parts.slice(0, -1), (parts.at(-1) ?? "").split(".")[0] ?? ""]
    const bad = stems.find((stem) => emptyNames.test(stem))
    if (bad !== undefined) problems.push({ path, line: 0, rule: "names", message: `"${bad}" says nothing` })
  }
  return problems
}

/** File and folder names directly under `folder`, without their ends. */
export function nounsIn(files: Files, folder: string): Set<string> {
  const nouns = new Set<string>()
  for (const path of files.keys()) {
    if (!path.startsWith(`${folder}/`)) continue
    const first = path.slice(folder.length + 1).split("/")[0] ?? ""
    nouns.add(first.replace(/\.ts$/, ""))
  }
  return nouns
}

/** Every port of the kernel is there in at least one world, under the port's own name. */
export const ports: Rule = ({ files }) => {
  const live = nounsIn(files, "src/live")
  const world = nounsIn(files, "simulations/world")
  return [...nounsIn(files, "src/kernel/ports")]
    .filter((noun) => !live.has(noun) && !world.has(noun))
    .map((noun) => ({
      path: `src/kernel/ports/${noun}.ts`,
      line: 0,
      rule: "ports",
      message: `neither src/live nor simulations/world has "${noun}"`
    }))
}

/** Which ports are in one world only: told, not forbidden. */
export function worldsDifference(files: Files): ReadonlyArray<string> {
  const live = nounsIn(files, "src/live")
  const world = nounsIn(files, "simulations/world")
  return [...nounsIn(files, "src/kernel/ports")]
    .filter((noun) => live.has(noun) !== world.has(noun))
    .map((noun) => `port ${noun}: only in ${live.has(noun) ? "src/live" : "simulations/world"}`)
}

const link = /!?\[[^\]]*\]\(([^()\s]+)(?:\s+"[^"]*")?\)/g

/** Links to files and folders of the repository lead somewhere; code blocks are not read. */
export const links: Rule = ({ files }) => {
  const folders = new Set([...files.keys()].flatMap((path) => parentsOf(path)))
  const problems: Array<Problem> = []
  for (const [path, text] of files) {
    if (!path.endsWith(".md")) continue
    for (const [index, line] of withoutCode(text).split("\n").entries()) {
      for (const [, target = ""] of line.matchAll(link)) {
        if (/^([a-z]+:|#)/i.test(target)) continue
        const file = decodeURI(target.split("#")[0] ?? "").replace(/\/$/, "")
        const full = posix.normalize(posix.join(posix.dirname(path), file))
        if (files.has(full) || folders.has(full)) continue
        problems.push({ path, line: index + 1, rule: "links", message: `no such file: ${target}` })
      }
    }
  }
  return problems
}

function parentsOf(path: string): Array<string> {
  const parents: Array<string> = ["."]
  for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) parents.push(path.slice(0, at))
  return parents
}

/** The text with fenced blocks and code spans blanked out, line by line. */
function withoutCode(text: string): string {
  let fenced = false
  return text
    .split("\n")
    .map((line) => {
      const fence = /^\s*(```|~~~)/.test(line)
      if (fence) fenced = !fenced
      return fence || fenced ? "" : line.replace(/`[^`]*`/g, "")
    })
    .join("\n")
}
