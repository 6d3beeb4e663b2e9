/** The simulated fleet with leases is tried on planted mistakes in the production source: each is found. */
import { fencingMutants } from "./fencing-mutants.ts"
import { seekAll } from "./mutant-seek.ts"

seekAll("fencing", fencingMutants, { seeds_max: 500, least: 7 })
