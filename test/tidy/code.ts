/** What no line of code may say: forbidden globals, ways around the types, tests that don't run, too much. */
import type { Node } from "typescript/unstable/ast"
import {
  isArrowFunction,
  isAsExpression,
  isCallExpression,
  isConstructorDeclaration,
  isFunctionDeclaration,
  isFunctionExpression,
  isGetAccessorDeclaration,
  isIdentifier,
  isMethodDeclaration,
  isNewExpression,
  isPropertyAccessExpression,
  isPropertyAssignment,
  isSetAccessorDeclaration,
  isTypeReferenceNode
} from "typescript/unstable/ast/is"
import { visit } from "./source.ts"
import type { Problem, Rule, Source } from "./source.ts"

export const fileLinesMax = 500
export const functionLinesMax = 70

type Report = (node: Node, message: string) => void

/** A rule that looks at each node of each source whose path matches. */
const perNode =
  (rule: string, paths: RegExp, see: (node: Node, report: Report, source: Source) => void): Rule =>
  ({ sources }) => {
    const problems: Array<Problem> = []
    for (const source of sources.values()) {
      if (!paths.test(source.path)) continue
      const report: Report = (node, message) =>
        problems.push({ path: source.path, line: source.lineOf(node), rule, message })
      visit(source.tree, (node) => see(node, report, source))
    }
    return problems
  }

/** Where time, chance and the environment come in by ports only. */
const deterministic = /^(src\/(?!live\/|cli\/|main\.ts$)|simulations\/(?!main\.ts$))/

const forbiddenNames = new Set(["randomUUID", "setTimeout", "setInterval", "setImmediate", "getRandomValues"])
const forbiddenMembers = new Set(["Math.random", "process.env", "performance.now", "process.hrtime"])
const dateMembers = new Set(["UTC", "parse"])

const memberOf = (node: Node) =>
  isPropertyAccessExpression(node) && isIdentifier(node.expression)
    ? `${node.expression.text}.${node.name.text}`
    : undefined

/** `Date` itself is fine as a type, with `Date.UTC` and `Date.parse`, and as `new Date(milliseconds)`. */
function isFineDate(node: Node): boolean {
  const { parent } = node
  if (isTypeReferenceNode(parent)) return true
  if (isPropertyAccessExpression(parent)) {
    return parent.expression !== node || dateMembers.has(parent.name.text)
  }
  return isNewExpression(parent) && (parent.arguments?.length ?? 0) > 0
}

export const forbiddenGlobals = perNode("globals", deterministic, (node, report) => {
  const member = memberOf(node)
  if (member !== undefined && forbiddenMembers.has(member))
    report(node, `${member} is for live, cli and main`)
  if (!isIdentifier(node)) return
  if (forbiddenNames.has(node.text)) report(node, `${node.text} is for live, cli and main`)
  if (node.text === "Date" && !isFineDate(node)) report(node, "the clock is for live, cli and main")
})

export const typeEscapes = perNode(
  "types",
  /^(src|simulations|test|scripts|bin|native)\//,
  (node, report, source) => {
    if (isAsExpression(node) && node.type.getText(source.tree) === "any")
      report(node, "`as any` hides a mistake")
  }
)

const testObjects = new Set(["test", "it", "describe", "suite", "t", "context"])
const leavesOut = new Set(["only", "skip", "todo"])

/** A test may be left out for a reason found at run time (`skip: reason`), never by a word in the source. */
export const leftOutTests = perNode("tests", /\.test\.ts$/, (node, report, source) => {
  if (isPropertyAccessExpression(node) && leavesOut.has(node.name.text)) {
    if (isIdentifier(node.expression) && testObjects.has(node.expression.text)) {
      report(node, `.${node.name.text} leaves tests out`)
    }
  }
  if (!isPropertyAssignment(node) || !leavesOut.has(node.name.getText(source.tree))) return
  if (/^(true|["'`])/.test(node.initializer.getText(source.tree))) {
    report(node, `${node.name.getText(source.tree)}: leaves a test out, always`)
  }
})

const isFunction = (node: Node) =>
  isFunctionDeclaration(node) ||
  isFunctionExpression(node) ||
  isArrowFunction(node) ||
  isMethodDeclaration(node) ||
  isConstructorDeclaration(node) ||
  isGetAccessorDeclaration(node) ||
  isSetAccessorDeclaration(node)

/** The function given to `describe` is a list of tests, not a thing that is read as one. */
const isSuite = ({ parent }: Node) =>
  isCallExpression(parent) &&
  isIdentifier(parent.expression) &&
  /^(describe|suite)$/.test(parent.expression.text)

export const functionLength = perNode(
  "length",
  /^(src|simulations|test|scripts|bin|native)\//,
  (node, report, source) => {
    if (!isFunction(node) || isSuite(node)) return
    const lines = node.getText(source.tree).split("\n").length
    if (lines > functionLinesMax) report(node, `function of ${lines} lines, ${functionLinesMax} at most`)
  }
)

/** A rule that looks at each file's text. */
const perText =
  (
    rule: string,
    paths: RegExp,
    see: (text: string) => ReadonlyArray<[line: number, message: string]>
  ): Rule =>
  ({ files }) =>
    [...files].flatMap(([path, text]) =>
      paths.test(path) ? see(text).map(([line, message]) => ({ path, line, rule, message })) : []
    )

export const fileLength = perText(
  "length",
  /^(src|simulations|test|scripts|bin|native|guest)\/.*\.(ts|mjs|js|c|cpp|hpp|h|py|sh)$/,
  (text) => {
    const lines = text.split("\n").length - (text.endsWith("\n") ? 1 : 0)
    return lines > fileLinesMax ? [[0, `${lines} lines, ${fileLinesMax} at most`]] : []
  }
)

// Put together, or this file would find itself.
const markers = new RegExp(`\\b(${["TO" + "DO", "FIX" + "ME"].join("|")})\\b`)
const compilerSilencers = new RegExp(`@ts-(${["ig" + "nore", "no" + "check"].join("|")})\\b`)

const linesWith = (pattern: RegExp, message: string) => (text: string) =>
  text
    .split("\n")
    .flatMap((line, index): Array<[number, string]> => (pattern.test(line) ? [[index + 1, message]] : []))

export const unfinished = perText(
  "unfinished",
  /\.(ts|mjs|js|md|sh|cpp|h|json|ya?ml)$/,
  linesWith(markers, "finish it, or write an ADR that says why not")
)

export const silencers = perText(
  "types",
  /\.(ts|mjs|js)$/,
  linesWith(compilerSilencers, "silences the compiler")
)
