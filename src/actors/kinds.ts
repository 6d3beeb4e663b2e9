/** Every kind of actor there is. */
import type { ActorKind } from "../kernel/actor.ts"
import { authorityActor } from "./authority/chart.ts"
import { clusterActor } from "./cluster/chart.ts"
import { hostActor } from "./host/chart.ts"
import { keyringActor } from "./keyring/chart.ts"
import { migrationActor } from "./migration/chart.ts"
import { modeActor } from "./mode/chart.ts"
import { nodeActor } from "./node/chart.ts"
import { peerActor } from "./peer/chart.ts"
import { placementActor } from "./placement/chart.ts"
import { rebalancerActor } from "./rebalancer/chart.ts"
import { vmActor } from "./vm/chart.ts"

export const actorKinds: ReadonlyArray<ActorKind> = [
  vmActor,
  hostActor,
  placementActor,
  migrationActor,
  modeActor,
  nodeActor,
  clusterActor,
  peerActor,
  keyringActor,
  authorityActor,
  rebalancerActor
]
