/** Who may import whom: DESIGN's table, cycles, barrels and files that nothing uses. */
import type { Node } from "typescript/unstable/ast"
import {
  isExportDeclaration,
  isImportDeclaration,
  isNoSubstitutionTemplateLiteral,
  isStringLiteral
} from "typescript/unstable/ast/is"
import { resolve, visit } from "./source.ts"
import type { Problem, Repository, Rule, Source } from "./source.ts"

interface Row {
  /** The files the row is about. */
  readonly files: RegExp
  /** Beside files of its own row, it may import these. */
  readonly may: RegExp
  /** And these packages and Node modules. */
  readonly packages: (specifier: string, path: string) => boolean
}

const isXstate = (specifier: string) => /^xstate(\/|$)/.test(specifier)
const isEffect = (specifier: string) => /^(effect|@effect\/[^/]+)(\/|$)/.test(specifier)
const isNode = (specifier: string) => specifier.startsWith("node:")
/** What effect promises to keep: the package itself, not its `unstable` modules. */
const isStableEffect = (specifier: string) =>
  isEffect(specifier) && !specifier.startsWith("@effect/") && !specifier.includes("/unstable")
const isOther = (specifier: string) =>
  !isXstate(specifier) && !isEffect(specifier) && !isNode(specifier) && !specifier.startsWith("@xstate/")

const anything = /^/
const nothing = /^$/

/** The table, row by row. A file in none of them (tests, scripts) may import anything. */
const rows: Readonly<Record<string, Row>> = {
  events: { files: /^src\/events\//, may: nothing, packages: (name) => name === "effect" },
  actors: {
    files: /^src\/actors\//,
    may: /^src\/(events\/|kernel\/actor\.ts$)/,
    packages: isXstate
  },
  kernel: {
    files: /^src\/kernel\//,
    may: /^src\/events\//,
    packages: (name, path) =>
      isStableEffect(name) || (isXstate(name) && /^src\/kernel\/(statechart|actor)\.ts$/.test(path))
  },
  projections: {
    files: /^src\/projections\//,
    may: /^src\/events\//,
    packages: () => false
  },
  live: {
    files: /^src\/live\//,
    may: /^(src\/(events|kernel|projections)|native)\//,
    packages: (name) => isEffect(name) || isNode(name) || isOther(name)
  },
  simulations: {
    files: /^simulations\//,
    may: /^src\/(?!live\/|main\.ts$)/,
    packages: (name, path) =>
      isStableEffect(name) || isOther(name) || (isNode(name) && path === "simulations/main.ts")
  },
  "cli, main": {
    files: /^src\/(cli\/|main\.ts$)/,
    may: anything,
    packages: (name) => isEffect(name) || isNode(name) || isOther(name)
  },
  native: { files: /^native\//, may: nothing, packages: (name) => isNode(name) || isOther(name) }
}

const actorFolder = (path: string) => /^src\/actors\/[^/]+\//.exec(path)?.[0]

function mayImportFile(row: Row, path: string, target: string): boolean {
  const own = actorFolder(path)
  if (own !== undefined && row.files.test(target)) return target.startsWith(own)
  return row.files.test(target) || row.may.test(target)
}

/** The names a file takes from `effect`; events may take `Schema`, and fields.ts `Effect` for its defaults. */
function effectNamesOf(source: Source): ReadonlyArray<string> {
  const names: Array<string> = []
  for (const statement of source.tree.statements) {
    if (!isImportDeclaration(statement)) continue
    const { moduleSpecifier, importClause } = statement
    if (!isStringLiteral(moduleSpecifier) || moduleSpecifier.text !== "effect") continue
    const bindings = importClause?.namedBindings
    if (bindings !== undefined && "elements" in bindings) {
      for (const element of bindings.elements) names.push((element.propertyName ?? element.name).text)
    } else names.push("*")
  }
  return names
}

/** In fields.ts `Effect` is there for `Effect.succeed`, with which Schema types its defaults. */
function effectUsesOf(source: Source): ReadonlyArray<string> {
  return [...source.text.matchAll(/\bEffect\.(\w+)/g)].map((match) => match[1] ?? "")
}

function eventsProblems(source: Source): Array<Problem> {
  const isFields = source.path === "src/events/fields.ts"
  const allowed = isFields ? ["Schema", "Effect"] : ["Schema"]
  const problem = (what: string) => ({
    path: source.path,
    line: 1,
    rule: "imports",
    message: `events may take only ${allowed.join(" and ")} from effect, not ${what}`
  })
  const names = effectNamesOf(source).filter((name) => !allowed.includes(name))
  const uses = isFields ? effectUsesOf(source).filter((use) => use !== "succeed") : []
  return [...names.map(problem), ...uses.map((use) => problem(`Effect.${use}`))]
}

export const importTable: Rule = ({ sources }) => {
  const problems: Array<Problem> = []
  for (const source of sources.values()) {
    const entry = Object.entries(rows).find(([, row]) => row.files.test(source.path))
    if (entry === undefined) continue
    const [name, row] = entry
    for (const { line, specifier, target } of source.imports) {
      const fine =
        target === undefined ? row.packages(specifier, source.path) : mayImportFile(row, source.path, target)
      const message = `${name} may not import ${target ?? specifier}`
      if (!fine) problems.push({ path: source.path, line, rule: "imports", message })
    }
    if (name === "events") problems.push(...eventsProblems(source))
  }
  return problems
}

/** Each strongly connected set of files is told once, by one of its cycles. */
export const cycles: Rule = ({ sources }) => {
  const problems: Array<Problem> = []
  const done = new Set<string>()
  const walk = (path: string, trail: ReadonlyArray<string>): void => {
    const at = trail.indexOf(path)
    if (at >= 0) {
      const message = `import cycle: ${[...trail.slice(at), path].join(" → ")}`
      problems.push({ path, line: 0, rule: "cycles", message })
    }
    if (at >= 0 || done.has(path)) return
    for (const { target } of sources.get(path)?.imports ?? []) {
      if (target !== undefined && sources.has(target)) walk(target, [...trail, path])
    }
    done.add(path)
  }
  for (const path of sources.keys()) walk(path, [])
  return problems
}

const namesOnly = (statement: Node) => isImportDeclaration(statement) || isExportDeclaration(statement)

export const barrels: Rule = ({ sources }) =>
  [...sources.values()]
    .filter(({ tree }) => tree.statements.some(isExportDeclaration) && tree.statements.every(namesOnly))
    .map(({ path }) => ({
      path,
      line: 0,
      rule: "barrels",
      message: "only re-exports: import the files themselves"
    }))

/** Files named in strings, as workers and child processes are, from the file's folder or from the root. */
function mentions(source: Source): Array<string> {
  const found: Array<string> = []
  visit(source.tree, (node) => {
    if (!isStringLiteral(node) && !isNoSubstitutionTemplateLiteral(node)) return
    if (!/\.(ts|mjs)$/.test(node.text)) return
    found.push(resolve(source.path, node.text) ?? node.text)
  })
  return found
}

function rootsOf({ files, sources }: Repository): Array<string> {
  const scripts = files.get("package.json") ?? ""
  return [...sources.keys()].filter(
    (path) =>
      path === "src/main.ts" || /^(bin|scripts)\/|\.test\.ts$/.test(path) || scripts.includes(` ${path}`)
  )
}

/** Not reachable from src/main.ts, bin, scripts, a test, or a file that package.json's scripts name. */
export const deadFiles: Rule = (repository) => {
  const { sources } = repository
  const live = new Set<string>()
  const queue = rootsOf(repository)
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const source = sources.get(path)
    if (source === undefined || live.has(path)) continue
    live.add(path)
    queue.push(...mentions(source), ...source.imports.flatMap(({ target }) => target ?? []))
  }
  return [...sources.keys()]
    .filter((path) => !live.has(path))
    .map((path) => ({ path, line: 0, rule: "dead files", message: "nothing imports or starts this file" }))
}
