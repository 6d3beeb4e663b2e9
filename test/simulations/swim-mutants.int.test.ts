/** The simulated members are tried on mistakes too: each, planted in the production source, is found. */
import { seekAll } from "./mutant-seek.ts"
import { swimMutants } from "./swim-mutants.ts"

seekAll("swim", swimMutants, { seeds_max: 200, least: 33 })
