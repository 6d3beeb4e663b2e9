/** What a life that is a plan of options and faults needs to be written down, replayed and made smaller. */
import { Option, Schema } from "effect"
import type { Event, Plan, Script, Verdict } from "./verdict.ts"

interface Options {
  readonly voters: number
  readonly safetyMs: number
}

interface Parts<O extends Options, E extends Event> {
  readonly draw: (seed: number) => O
  readonly runPlan: (plan: {
    readonly seed: number
    readonly options: O
    /** Null where they are drawn. */
    readonly faults: ReadonlyArray<E> | null
  }) => Verdict & { readonly options: O; readonly faults: ReadonlyArray<E> }
  readonly fault: Schema.Codec<E["fault"], unknown>
  /** Each leaves something out of the options, or makes it less. */
  readonly changes: ReadonlyArray<(options: O) => O>
}

export function scriptOf<O extends Options, E extends Event>(parts: Parts<O, E>): Script {
  const { draw, runPlan, fault, changes } = parts
  const decodeFault = Schema.decodeUnknownOption(fault)
  return {
    options: draw,
    plan: (seed) => {
      const verdict = runPlan({ seed, options: draw(seed), faults: null })
      return { plan: { seed, options: verdict.options, faults: verdict.faults }, verdict }
    },
    // What is read of a file was drawn by this scenario, and its faults were decoded by it.
    run: ({ seed, options, faults }: Plan) =>
      runPlan({ seed, options: options as O, faults: faults as ReadonlyArray<E> }),
    decode: (found) => Option.getOrNull(decodeFault(found)),
    simpler: (options) => {
      const it = options as O
      const before = JSON.stringify(it)
      return changes
        .map((change) => change(it))
        .filter((one) => one.voters > 0 && one.safetyMs > 0 && JSON.stringify(one) !== before)
    }
  }
}
