/**
 * A run as a text that people can read and change: what it shows, which options differ from what its seed draws, and what
 * befalls it, a line each.
 *
 *     purpose: election-safety: n1 and n2 lead in term 4
 *     scenario: raft
 *     seed: 17
 *     broken: election-safety
 *     journal: 5f0c…
 *
 *     option members = 3
 *
 *     at 812.5 ms: crash id=n1 forMs=200 requests=-
 *     at 1012 ms: partition paths=[n1>n2,n2>n1] forMs=400 flapMs=-
 *
 * Lines that begin with # say nothing to the machine.
 */
import { scenarioOf } from "./scenarios.ts"
import type { Event, Plan, Scenario, Script } from "./verdict.ts"

export interface ScenarioFile {
  readonly purpose: string
  readonly scenario: Scenario
  readonly plan: Plan
  /** The promise that it breaks; null for one that keeps them all. */
  readonly broken: string | null
  readonly journal: string
}

/** What a text that is no scenario has wrong, with its line. */
export class NoScenario extends Error {
  readonly line: number

  constructor(line: number, message: string) {
    super(`line ${line}: ${message}`)
    this.line = line
  }
}

const lines_max = 100_000

type Values = Readonly<Record<string, unknown>>
const isGroup = (value: unknown): value is Values =>
  typeof value === "object" && value !== null && !Array.isArray(value)

function flat(options: object, before = ""): Array<readonly [string, unknown]> {
  return Object.entries(options).flatMap(([key, value]) =>
    isGroup(value) ? flat(value, `${before}${key}.`) : [[`${before}${key}`, value] as const]
  )
}

/** Numbers as they are, `-` for nothing, `never` for infinity, lists in brackets. */
function written(value: unknown): string {
  if (value === null) return "-"
  if (value === Number.POSITIVE_INFINITY) return "never"
  return Array.isArray(value) ? `[${value.join(",")}]` : String(value)
}

function read(text: string): unknown {
  if (text === "-") return null
  if (text === "never") return Number.POSITIVE_INFINITY
  if (text === "true" || text === "false") return text === "true"
  if (text.startsWith("[") && text.endsWith("]")) return text.length === 2 ? [] : text.slice(1, -1).split(",")
  return /^-?\d+(\.\d+)?(e-?\d+)?$/.test(text) ? Number(text) : text
}

export function scenarioText({ purpose, scenario, plan, broken, journal }: ScenarioFile): string {
  const drawn = new Map(scenario.script === undefined ? [] : flat(scenario.script.options(plan.seed)))
  const options = flat(plan.options)
    .filter(([path, value]) => written(value) !== written(drawn.get(path) ?? null))
    .map(([path, value]) => `option ${path} = ${written(value)}`)
  const faults = plan.faults.map(({ atMs, fault: { kind, ...rest } }) =>
    [
      `at ${atMs} ms: ${kind}`,
      ...Object.entries(rest).map(([key, value]) => `${key}=${written(value)}`)
    ].join(" ")
  )
  const head = [
    `purpose: ${purpose.replaceAll("\n", " ")}`,
    `scenario: ${scenario.name}`,
    `seed: ${plan.seed}`,
    `broken: ${broken ?? "-"}`,
    `journal: ${journal}`
  ]
  return [head, options, faults]
    .filter((part) => part.length > 0)
    .map((part) => `${part.join("\n")}\n`)
    .join("\n")
}

const heads = ["purpose", "scenario", "seed", "broken", "journal"] as const

/** Throws `NoScenario`. */
export function parseScenario(text: string): ScenarioFile {
  const lines = text.split("\n").map((line, at) => ({ text: line.trim(), line: at + 1 }))
  if (lines.length > lines_max) throw new NoScenario(lines_max, "a scenario has not more lines than this")
  const said = new Map<string, string>()
  const [options, faults]: [Array<Line>, Array<Line>] = [[], []]
  for (const one of lines) {
    if (one.text === "" || one.text.startsWith("#")) continue
    const [, key = "", value = ""] = /^(\w+): (.*)$/.exec(one.text) ?? []
    if ((heads as ReadonlyArray<string>).includes(key)) said.set(key, value)
    else if (one.text.startsWith("option ")) options.push(one)
    else if (one.text.startsWith("at ")) faults.push(one)
    else throw new NoScenario(one.line, `"${one.text}" is no heading, option or fault`)
  }
  const missing = heads.find((key) => !said.has(key))
  if (missing !== undefined) throw new NoScenario(lines.length, `there is no "${missing}:"`)
  const name = said.get("scenario") ?? ""
  const scenario = scenarioOf(name)
  if (scenario?.script === undefined)
    throw new NoScenario(1, `no scenario "${name}" can be replayed from a file`)
  const seed = Number(said.get("seed"))
  if (!Number.isInteger(seed) || seed < 0 || seed > 0xffffffff)
    throw new NoScenario(1, `the seed is ${said.get("seed")}: allowed is from 0 to 4294967295`)
  const broken = said.get("broken") ?? "-"
  return {
    purpose: said.get("purpose") ?? "",
    scenario,
    plan: {
      seed,
      options: withOptions(scenario.script.options(seed), options),
      faults: faults.map((line) => faultOf(scenario.script as Script, line))
    },
    broken: broken === "-" ? null : broken,
    journal: said.get("journal") ?? ""
  }
}

interface Line {
  readonly text: string
  readonly line: number
}

function withOptions(drawn: object, lines: ReadonlyArray<Line>): object {
  const options = structuredClone(drawn) as Record<string, unknown>
  for (const { text, line } of lines) {
    const [, path = "", value = ""] = /^option (\S+) = (.*)$/.exec(text) ?? []
    const keys = path.split(".")
    const last = keys.pop() ?? ""
    let group: unknown = options
    for (const key of keys) group = isGroup(group) ? group[key] : undefined
    if (!isGroup(group) || !(last in group)) throw new NoScenario(line, `there is no option "${path}"`)
    const now = read(value)
    if (typeof now !== typeof group[last] || Array.isArray(now) !== Array.isArray(group[last]))
      throw new NoScenario(line, `${path} is ${value}, and a ${typeof group[last]} is wanted`)
    ;(group as Record<string, unknown>)[last] = now
  }
  return options
}

function faultOf(script: Script, { text, line }: Line): Event {
  const [, at = "", kind = "", rest = ""] = /^at (\S+) ms: (\S+) ?(.*)$/.exec(text) ?? []
  const atMs = Number(at)
  if (at === "" || !(atMs >= 0)) throw new NoScenario(line, `"${text}" has no time`)
  const values = rest
    .split(" ")
    .filter((part) => part !== "")
    .map((part) => [part.slice(0, part.indexOf("=")), read(part.slice(part.indexOf("=") + 1))] as const)
  const fault = script.decode({ kind, ...Object.fromEntries(values) })
  if (fault === null) throw new NoScenario(line, `"${kind} ${rest}" is no fault of this scenario`)
  return { atMs, fault }
}
