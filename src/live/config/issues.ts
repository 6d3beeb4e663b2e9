/** What a Schema found wrong with outside data, flat: every path, the value there and what is allowed. */
import { Schema, SchemaIssue } from "effect"
import type { SchemaAST } from "effect"

export const Issue = Schema.Struct({
  /** `spec.disks.0.sizeMib`; empty for the whole. */
  path: Schema.String,
  /** The refused value, cut when it is long; left out when there is none. */
  value: Schema.optionalKey(Schema.Unknown),
  allowed: Schema.String
})
export type Issue = typeof Issue.Type

/** Every error at once, keys nobody knows are errors, and values are reported back. */
export const strict = { errors: "all", onExcessProperty: "error", reportInput: true } as const

const valueCharacters_max = 200
const issues_max = 100

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** Values from outside may be nested so deeply that writing them down overflows the stack. */
function unlessTooDeep<A>(write: () => A, otherwise: A): A {
  try {
    return write()
  } catch (error) {
    if (error instanceof RangeError) return otherwise
    throw error
  }
}

const messageOf = (issue: SchemaIssue.Issue): string | undefined =>
  unlessTooDeep(() => format(issue).issues[0]?.message, "a value that is not nested so deeply")

/** At most `issues_max` issues, in the order of the schema. */
export function issuesOf(issue: SchemaIssue.Issue): ReadonlyArray<Issue> {
  const found: Array<Issue> = []
  walk(issue, [], undefined, found)
  const unique = new Map(found.map((one) => [`${one.path} ${one.allowed}`, one]))
  return [...unique.values()].slice(0, issues_max)
}

function walk(
  issue: SchemaIssue.Issue,
  path: ReadonlyArray<PropertyKey>,
  outer: string | undefined,
  found: Array<Issue>
): void {
  const { _tag } = issue
  if (_tag === "Pointer") return walk(issue.issue, [...path, ...issue.path], outer, found)
  if (_tag === "Encoding") return walk(issue.issue, path, outer, found)
  if (_tag === "Filter") return walk(issue.issue, path, outer ?? messageOf(issue), found)
  if (_tag === "Composite" || (_tag === "AnyOf" && issue.issues.length > 0)) {
    for (const inner of issue.issues) walk(inner, path, outer, found)
    return
  }
  const at = path.map(String).join(".")
  const allowed = issue._tag === "UnexpectedKey" ? keysOf(issue.ast) : allowedOf(outer ?? leaf(issue))
  found.push({ path: at, ...shown(issue), allowed })
}

const leaf = (issue: SchemaIssue.Issue) => messageOf(issue) ?? "something else"

function shown(issue: SchemaIssue.Issue): { value?: unknown } {
  if (issue._tag === "MissingKey" || !SchemaIssue.hasInput(issue)) return {}
  const { input } = issue
  const text = unlessTooDeep<string | undefined>(() => JSON.stringify(input), undefined)
  if (text === undefined) return {}
  return { value: text.length > valueCharacters_max ? `${text.slice(0, valueCharacters_max)}…` : input }
}

/** `Expected a number, got "x"` → `a number`. */
function allowedOf(message: string): string {
  if (message === "Missing key") return "a value: this key has to be given"
  const got = message.lastIndexOf(", got ")
  const text = message.startsWith("Expected ") ? message.slice("Expected ".length) : message
  return got > 0 && message.startsWith("Expected ") ? message.slice("Expected ".length, got) : text
}

function keysOf(ast: SchemaAST.AST): string {
  if (ast._tag !== "Objects") return "no key of this name"
  const keys = ast.propertySignatures.map((one) => String(one.name))
  return keys.length > 0 ? `the keys ${keys.join(", ")}` : "keys that are names: a-z, 0-9 and -"
}

/** One line per issue, for people. */
export const describeIssue = (issue: Issue): string =>
  `${issue.path === "" ? "(the whole)" : issue.path}: ${
    "value" in issue ? `${JSON.stringify(issue.value)} is refused; ` : ""
  }allowed: ${issue.allowed}`
