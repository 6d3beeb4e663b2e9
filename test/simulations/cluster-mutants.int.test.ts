/** The simulated cluster is tried on planted mistakes in the production source: each is found. */
import { clusterMutants } from "./cluster-mutants.ts"
import { seekAll } from "./mutant-seek.ts"

seekAll("cluster", clusterMutants, { seeds_max: 500, least: 17 })
