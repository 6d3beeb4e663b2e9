/** The chart lint: holds every actor's chart to the contract in src/kernel/actor.ts. */
import type { AnyStateMachine, AnyStateNode, AnyTransitionDefinition } from "xstate"
import type { ActorKind } from "../../src/kernel/actor.ts"

export const isActorKind = (value: unknown): value is ActorKind =>
  typeof value === "object" && value !== null && "kind" in value && "chart" in value && "facts" in value

const typeOf = (action: unknown): unknown =>
  typeof action === "string" ? action : (action as { readonly type?: unknown } | undefined)?.type

/**
 * `assign`, `emit`, `request`, `xstate.raise` …: XState's own actions are functions that carry their type. A name
 * given in `setup` is looked up, because `count` may be an `assign` or something that has no place in a chart.
 */
function namerFor(chart: AnyStateMachine): (action: unknown) => string {
  const named: Readonly<Record<string, unknown>> = chart.implementations.actions
  return (action) => {
    const type = typeOf(action)
    if (type === "request") return type
    const own = typeof type === "string" && type.startsWith("xstate.") ? type : typeOf(named[String(type)])
    if (typeof own === "string") return own.replace(/^xstate\.(assign|emit)$/, "$1")
    return typeof type === "string" ? type : "an inline function"
  }
}

type Report = (message: string) => void
type NameOf = (action: unknown) => string

/** A command or report only records facts. */
function checkInput(transition: AnyTransitionDefinition, nameOf: NameOf, report: Report): void {
  const event = transition.eventType
  if (transition.target !== undefined) report(`${event} has a target; only a fact moves the chart`)
  const actions = transition.actions.map(nameOf)
  if (actions.length === 0) report(`${event} records no fact`)
  for (const action of actions)
    if (action !== "emit") report(`${event} does ${action}; it may only emit facts`)
}

/** A fact only evolves and asks, and decides nothing: on replay a guard could come to another answer. */
function checkFact(transition: AnyTransitionDefinition, nameOf: NameOf, report: Report): void {
  const event = transition.eventType
  if (transition.guard !== undefined) report(`${event} has a guard; decide where the fact is recorded`)
  for (const action of transition.actions.map(nameOf)) {
    if (action !== "assign" && action !== "request")
      report(`${event} does ${action}; a fact may only assign and request`)
  }
}

function checkNode(node: AnyStateNode, nameOf: NameOf, report: Report): void {
  if (node.after.length > 0) report("`after`: a timer is a request, and its firing a report")
  if (node.invoke.length > 0) report("`invoke`: the kernel runs things, by requests")
  if (node.always !== undefined && node.always.length > 0)
    report("`always`: what moves the chart is a recorded fact")
  for (const [when, actions] of [
    ["entry", node.entry],
    ["exit", node.exit]
  ] as const) {
    for (const action of actions.map(nameOf)) {
      // `after` is XState's own entry action and was reported above.
      if (action !== "request" && !action.startsWith("xstate.cancel"))
        report(`${when} does ${action}; only request`)
    }
  }
  const initial = node.type === "compound" ? node.initial.actions.length : 0
  if (initial > 0) report("the initial transition has actions")
}

function nodesOf(node: AnyStateNode): Array<AnyStateNode> {
  return [node, ...Object.values(node.states).flatMap((child) => nodesOf(child as AnyStateNode))]
}

function checkTypes(kind: ActorKind, used: ReadonlySet<string>, report: Report): void {
  const all = [...kind.facts, ...kind.commands, ...kind.reports]
  for (const type of new Set(all.filter((one, index) => all.indexOf(one) !== index))) {
    report(`${type} is declared more than once`)
  }
  for (const type of kind.facts) if (!used.has(type)) report(`fact ${type} is handled in no state`)
  for (const type of kind.commands) if (!used.has(type)) report(`command ${type} is handled in no state`)
}

/** What is wrong with the chart, a line each; empty when nothing is. */
export function lintChart(kind: ActorKind): ReadonlyArray<string> {
  const problems: Array<string> = []
  const nameOf = namerFor(kind.chart)
  const used = new Set<string>()
  for (const node of nodesOf(kind.chart.root as AnyStateNode)) {
    const report = (message: string) =>
      problems.push(`${kind.kind}: ${node.path.join(".") || "root"}: ${message}`)
    checkNode(node, nameOf, report)
    for (const [event, transitions] of node.transitions) {
      // Reported by checkNode, each under the name it has in the source.
      if (/^xstate\.(after|done\.actor|error\.actor)\./.test(event)) continue
      used.add(event)
      for (const transition of transitions) {
        if (kind.facts.includes(event)) checkFact(transition, nameOf, report)
        else if (kind.commands.includes(event) || kind.reports.includes(event))
          checkInput(transition, nameOf, report)
        else report(`${event} is not declared in facts, commands or reports`)
      }
    }
  }
  checkTypes(kind, used, (message) => problems.push(`${kind.kind}: ${message}`))
  return problems
}
