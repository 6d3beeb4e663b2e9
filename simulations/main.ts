/**
 * Tasks in, what came of them out: a thread that runs one after the other. The command `novacron simulate` starts as many
 * as it is told, and gives them tasks by messages.
 */
import { hash } from "node:crypto"
import { parentPort } from "node:worker_threads"
import { knossos, porcupine } from "./histories.ts"
import type { Call } from "./checkers/linearizability.ts"
import { NoScenario, parseScenario, scenarioText } from "./scenario-file.ts"
import { resolve, scenarioOf, scripted } from "./scenarios.ts"
import { shrink } from "./shrink.ts"
import type { Verdict } from "./verdict.ts"

export type Task =
  /** With the clients' history where the scenario has one. */
  | {
      readonly task: "run"
      readonly scenario: string
      readonly seed: number
      readonly history: boolean
      readonly hosts?: number | null
    }
  | { readonly task: "replay"; readonly text: string }
  | { readonly task: "shrink"; readonly scenario: string; readonly seed: number }

/** A verdict as it goes between threads. */
export interface Said extends Omit<Verdict, "violation"> {
  readonly violation: { readonly promised: string; readonly message: string } | null
  readonly history: { readonly porcupine: string; readonly knossos: string } | null
}

export type Answer =
  { readonly said: Said; readonly text: string | null; readonly runs: number } | { readonly wrong: string }

function said(verdict: Verdict, history: Said["history"] = null): Said {
  const { violation, ...rest } = verdict
  const broken = violation === null ? null : { promised: violation.promised, message: violation.message }
  const { seed, options, events, simulatedMs, counts, injected, coverage, figures = {}, hash } = rest
  return {
    seed,
    options,
    events,
    simulatedMs,
    counts,
    injected,
    coverage,
    figures,
    hash,
    history,
    violation: broken
  }
}

const historyOf = (verdict: Verdict): Said["history"] => {
  if (!("history" in verdict)) return null
  const calls = [...(verdict.history as ReadonlyMap<string, ReadonlyArray<Call>>).values()].flat()
  return { porcupine: porcupine(calls), knossos: knossos(calls) }
}

const outside = {
  nowMs: () => performance.now(),
  memoryMib: () => Math.round(process.resourceUsage().maxRSS / 1024),
  sha256: (text: string) => hash("sha256", text)
}

function perform(task: Task): Answer {
  if (task.task === "replay") {
    const { scenario, plan, broken, journal } = parseScenario(task.text)
    const verdict = scenario.script?.run(plan)
    if (verdict === undefined) return { wrong: `${scenario.name} can't be replayed from a file` }
    const isSame = verdict.hash === journal && (verdict.violation?.promised ?? null) === broken
    return isSame
      ? { said: said(verdict), text: null, runs: 1 }
      : {
          wrong: `the file tells of ${broken ?? "no broken promise"} and ${journal}, and the run ended with ${verdict.violation?.promised ?? "no broken promise"} and ${verdict.hash}`
        }
  }
  if (task.task === "run") {
    const verdict = scenarioOf(task.scenario)?.run(task.seed, { ...outside, hosts: task.hosts ?? null })
    if (verdict === undefined) return { wrong: `there is no scenario ${task.scenario}` }
    return { said: said(verdict, task.history ? historyOf(verdict) : null), text: null, runs: 1 }
  }
  const scenario = resolve(task.scenario, task.seed)
  if (scenario?.script === undefined)
    return {
      wrong: `seed ${task.seed} is a life of ${scenario?.name ?? task.scenario}, which can't be made smaller: lives of ${scripted.join(" and ")} can`
    }
  const shrunk = shrink(scenario.script, task.seed)
  if (shrunk?.verdict.violation == null)
    return { wrong: `seed ${task.seed} breaks nothing when it is run again` }
  const { plan, verdict, runs } = shrunk
  const { promised, message } = shrunk.verdict.violation
  const text = scenarioText({ purpose: message, scenario, plan, broken: promised, journal: verdict.hash })
  return { said: said(verdict), text, runs }
}

parentPort?.on("message", (task: Task) => {
  try {
    parentPort?.postMessage(perform(task))
  } catch (error) {
    if (!(error instanceof NoScenario)) throw error
    parentPort?.postMessage({ wrong: error.message } satisfies Answer)
  }
})
