/**
 * Loaded before src/main.ts by `npm start`: installs what the chosen driver needs. npm gives a `prestart` script
 * no arguments, so this is where `--driver sim` can be seen.
 */
import { useCompileCache } from "../bin/compile-cache.mjs"
import { ensureSystem, SetupError, systemIsOptional } from "./system.mjs"

useCompileCache()
try {
  if (!systemIsOptional(process.argv.slice(2))) await ensureSystem()
} catch (error) {
  if (!(error instanceof SetupError)) throw error
  console.error(`set-up: ${error.message}`)
  process.exit(1)
}
