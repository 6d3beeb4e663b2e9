/** The table of keys, written out: a commented YAML file, the JSON Schema and the reference for people. */
import { Schema } from "effect"
import { stringify } from "yaml"
import { keyAt, keyPaths, variablesOf } from "./keys.ts"
import type { KeyPath } from "./keys.ts"

const inYaml = (value: unknown): string => stringify(value, { collectionStyle: "flow" }).trimEnd()

const width = 100

function comment(text: string, indent: string): Array<string> {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && indent.length + 2 + line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === "" ? word : `${line} ${word}`
  }
  return [...lines, line].map((one) => `${indent}# ${one}`)
}

/** A file that sets every key to its default, with what each is for. */
export function commentedYaml(): string {
  const lines = [
    "# NovaCron's configuration. Every key is shown with its default; leave out what you don't change."
  ]
  let open: ReadonlyArray<string> = []
  for (const at of keyPaths) {
    const key = keyAt(at)
    const parts = at.split(".")
    const name = parts.at(-1) ?? at
    const sections = parts.slice(0, -1)
    for (const [depth, section] of sections.entries()) {
      if (open[depth] === section && open.slice(0, depth).join(".") === sections.slice(0, depth).join("."))
        continue
      if (depth === 0) lines.push("")
      lines.push(`${"  ".repeat(depth)}${section}:`)
    }
    open = sections
    const indent = "  ".repeat(sections.length)
    const allowed = key.built ? `Allowed: ${key.allowed}.` : `Not built yet: only ${inYaml(key.default)}.`
    lines.push(...comment(`${key.about} ${allowed}`, indent), `${indent}${name}: ${inYaml(key.default)}`)
  }
  return `${lines.join("\n")}\n`
}

type Json = Record<string, any>

function jsonSchemaOf(at: KeyPath): Json {
  const key = keyAt(at)
  const description = `${key.about} Allowed: ${key.allowed}.`
  if (!key.built)
    return { const: key.default, default: key.default, description: `${description} Not built yet.` }
  const { schema } = Schema.toJsonSchemaDocument(key.schema)
  return { ...(schema as Json), default: key.default, description }
}

/** JSON Schema (draft 2020-12) of the file. */
export function configJsonSchema(): Json {
  const object = (): Json => ({ type: "object", properties: {}, additionalProperties: false })
  const root: Json = {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    $id: "urn:novacron:schema:config",
    title: "NovaCron configuration",
    ...object()
  }
  for (const at of keyPaths) {
    const parts = at.split(".")
    const name = parts.pop() ?? at
    let section = root
    for (const part of parts) section = section["properties"][part] ??= object()
    section["properties"][name] = jsonSchemaOf(at)
  }
  return root
}

const cell = (text: string) => text.replaceAll("|", "\\|")

/** docs/reference/configuration.md */
export function configReference(): string {
  const rows = keyPaths.map((at) => {
    const key = keyAt(at)
    const allowed = key.built ? key.allowed : `${inYaml(key.default)} (not built yet)`
    const variables = variablesOf(at).map((name) => `\`${name}\``)
    return `| \`${at}\` | \`${cell(inYaml(key.default))}\` | ${cell(allowed)} | ${cell(key.about)} | ${variables.join(", ")} |`
  })
  return `# Configuration

One YAML file, \`--config\` or \`$XDG_CONFIG_HOME/novacron/config.yaml\`. The environment wins over the file, the file
over the defaults. Unknown keys and bad values are refused, all at once, with their path, the value and what is
allowed. \`novacron config generate\` writes a commented file, \`novacron config validate\` checks one, and
\`novacron config show\` says where each value came from. Labels in a variable are written \`zone=a,rack=7\`.

A key whose part is not built yet takes only its default.

| key | default | allowed | what it is for | variables |
|---|---|---|---|---|
${rows.join("\n")}
`
}
