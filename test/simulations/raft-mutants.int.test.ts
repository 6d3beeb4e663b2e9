/** The simulator is tried on mistakes that others have made: each, planted in the production source, is found. */
import { mutants } from "./mutants.ts"
import { seekAll } from "./mutant-seek.ts"

seekAll("raft", mutants, { seeds_max: 500, least: 37 })
