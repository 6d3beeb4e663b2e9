/** A small fleet whose hosts hold leases: lost ones are fenced, and their machines start elsewhere. */
import { World, verdictOf } from "../fleet/run.ts"
import type { FleetVerdict } from "../fleet/run.ts"

export const run = (seed: number): FleetVerdict => verdictOf(new World(seed, true))
