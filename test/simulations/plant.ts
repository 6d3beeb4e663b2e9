/** Plants a mistake in the production source, for what this process imports from now on. */
import { registerHooks } from "node:module"
import type { Mutant } from "./mutants.ts"

/** The edits whose text was not there once, of files that were loaded or not; looked at when all are. */
export function plant(mutant: Mutant): ReadonlySet<string> {
  const unapplied = new Set(mutant.edits.map(({ find }) => find))
  registerHooks({
    load: (url, context, nextLoad) => {
      const loaded = nextLoad(url, context)
      const edits = mutant.edits.filter(({ file }) => url === new URL(`../../${file}`, import.meta.url).href)
      if (edits.length === 0) return loaded
      let source = String(
        loaded.source instanceof Uint8Array ? new TextDecoder().decode(loaded.source) : loaded.source
      )
      for (const { find, put } of edits) {
        if (source.split(find).length !== 2) continue
        source = source.replace(find, () => put)
        unapplied.delete(find)
      }
      return { ...loaded, source }
    }
  })
  return unapplied
}
