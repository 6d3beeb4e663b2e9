/** Threads that simulate, for `novacron simulate`: seeds by the thousand, or one task. */
import { extname } from "node:path"
import { Worker } from "node:worker_threads"
import { Effect } from "effect"
import type { Answer, Said, Task } from "../../simulations/main.ts"
import { failure } from "./exit.ts"

interface Wanted {
  readonly scenario: string
  /** With the clients' history of each. */
  readonly history: boolean
  readonly seed: number
  /** So many, or until the time is over. */
  readonly seeds: number
  readonly endMs: number
  readonly workers: number
  /** Of a scenario that may be large; null for what its seeds draw. */
  readonly hosts: number | null
  /** Told of each as it ends; true ends it all. */
  readonly take: (said: Said) => boolean
}

/** Ten thousand hosts need some 3 GiB. */
const large = { maxOldGenerationSizeMb: 7500 }

const threadFile = () =>
  new URL(`../../simulations/main${extname(new URL(import.meta.url).pathname)}`, import.meta.url)

/** Gives every thread its next seed when it has done one. Ends when all are done, or on the first failure of a thread. */
export function runSeeds(
  { scenario, history, seed, seeds, endMs, workers, hosts, take }: Wanted,
  signal: AbortSignal
): Promise<void> {
  let next = seed
  let running = 0
  const threads: Array<Worker> = []
  const end = () => Promise.all(threads.map((thread) => thread.terminate()))
  return new Promise<void>((resolve, reject) => {
    signal.addEventListener("abort", () => reject(new Error("interrupted")))
    let isOver = false
    const give = (thread: Worker) => {
      isOver ||= next >= seed + seeds || performance.now() >= endMs
      if (isOver) {
        if (running === 0) resolve()
        return
      }
      running++
      thread.postMessage({ task: "run", scenario, seed: next++, history, hosts } satisfies Task)
    }
    for (let count = 0; count < Math.min(workers, seeds); count++) {
      const thread = new Worker(threadFile(), hosts === null ? {} : { resourceLimits: large })
      threads.push(thread)
      thread.on("error", reject)
      thread.on("message", (answer: Answer) => {
        running--
        if ("wrong" in answer) return reject(new Error(answer.wrong))
        const isEnough = take(answer.said)
        isOver ||= isEnough
        give(thread)
      })
    }
    for (const thread of threads) give(thread)
  }).finally(end)
}

/** One task, in a thread of its own, so that it can be interrupted. */
function perform(task: Task, signal: AbortSignal): Promise<Answer> {
  const thread = new Worker(threadFile())
  return new Promise<Answer>((resolve, reject) => {
    signal.addEventListener("abort", () => reject(new Error("interrupted")))
    thread.on("error", reject)
    thread.on("message", (answer: Answer) => resolve(answer))
    thread.postMessage(task)
  }).finally(() => thread.terminate())
}

export const performed = (task: Task) =>
  Effect.tryPromise({
    try: (signal) => perform(task, signal),
    catch: (error) => failure("failure", `the simulation stopped: ${String(error)}`)
  })
