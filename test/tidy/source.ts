/**
 * What the rules look at: a map of files, and a syntax tree for each that is code. The tree comes from the
 * TypeScript that checks the types here, through its API for other programs; see ADR 1.
 */
import { API } from "typescript/unstable/sync"
import type { Node, SourceFile } from "typescript/unstable/ast"
import { isImportTypeNode, isLiteralTypeNode, isStringLiteral } from "typescript/unstable/ast/is"
import { createVirtualFileSystem } from "typescript/unstable/fs"
import { posix } from "node:path"

/** Text by path from the repository's root, with forward slashes. */
export type Files = ReadonlyMap<string, string>

export interface Problem {
  readonly path: string
  /** From 1; 0 where the whole file or folder is meant. */
  readonly line: number
  readonly rule: string
  readonly message: string
}

export interface Import {
  readonly line: number
  readonly specifier: string
  /** Path of the file it names, from the root; undefined for packages and Node's modules. */
  readonly target: string | undefined
}

export interface Source {
  readonly path: string
  readonly text: string
  readonly tree: SourceFile
  readonly imports: ReadonlyArray<Import>
  readonly lineOf: (node: Node) => number
}

export type Rule = (repository: Repository) => ReadonlyArray<Problem>

export interface Repository {
  readonly files: Files
  readonly sources: ReadonlyMap<string, Source>
}

export const isCode = (path: string): boolean => /\.(ts|mjs)$/.test(path) && !path.endsWith(".d.ts")

/** Visits every node below `node`, parents first. */
export function visit(node: Node, see: (node: Node) => void): void {
  node.forEachChild((child) => {
    see(child)
    visit(child, see)
  })
}

export const resolve = (from: string, specifier: string): string | undefined =>
  specifier.startsWith("./") || specifier.startsWith("../")
    ? posix.normalize(posix.join(posix.dirname(from), specifier))
    : undefined

function lineFinder(text: string): (offset: number) => number {
  const starts = [0]
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) starts.push(at + 1)
  return (offset) => {
    let low = 0
    let high = starts.length
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if ((starts[middle] ?? 0) <= offset) low = middle
      else high = middle
    }
    return low + 1
  }
}

/** Static and dynamic imports, re-exports, `import("…")` types: an import of types only is an import too. */
function specifiersOf(tree: SourceFile): Array<Node & { readonly text: string }> {
  const found = tree.imports.filter(isStringLiteral)
  visit(tree, (node) => {
    if (!isImportTypeNode(node) || !isLiteralTypeNode(node.argument)) return
    const literal = node.argument.literal
    if (isStringLiteral(literal) && !found.includes(literal)) found.push(literal)
  })
  return found
}

function toSource(path: string, tree: SourceFile): Source {
  const lineAt = lineFinder(tree.text)
  const lineOf = (node: Node) => lineAt(node.getStart(tree))
  const imports = specifiersOf(tree).map((literal) => ({
    line: lineOf(literal),
    specifier: literal.text,
    target: resolve(path, literal.text)
  }))
  return { path, text: tree.text, tree, imports, lineOf }
}

/** Parses every code file of `files`; nothing is read from disk. */
export function parse(files: Files): Repository {
  const root = "/tidy"
  const options = { noLib: true, noResolve: true, allowJs: true, types: [], module: "nodenext", noEmit: true }
  const virtual: Record<string, string> = {
    [`${root}/tsconfig.json`]: JSON.stringify({ compilerOptions: options, include: ["**/*"] })
  }
  for (const [path, text] of files) if (isCode(path)) virtual[`${root}/${path}`] = text
  const api = new API({ fs: createVirtualFileSystem(virtual) })
  try {
    const config = `${root}/tsconfig.json`
    const program = api.updateSnapshot({ openProjects: [config] }).getProject(config)?.program
    if (program === undefined) throw new Error("the TypeScript API opened no project")
    const sources = new Map<string, Source>()
    for (const path of files.keys()) {
      if (!isCode(path)) continue
      const tree = program.getSourceFile(`${root}/${path}`)
      if (tree === undefined) throw new Error(`the TypeScript API left out ${path}`)
      sources.set(path, toSource(path, tree))
    }
    return { files, sources }
  } finally {
    api.close()
  }
}
