/** The simulated fleet is tried on planted mistakes in the production source: each is found. */
import { fleetMutants } from "./fleet-mutants.ts"
import { seekAll } from "./mutant-seek.ts"

seekAll("fleet", fleetMutants, { seeds_max: 200, least: 8 })
