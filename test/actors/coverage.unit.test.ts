/** Every reachable state of every chart meets every input: each is recorded, ignored or refused, and nothing throws. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Schema } from "effect"
import type { StateNode } from "xstate"
import { AuthorityFact } from "../../src/events/authority.ts"
import { ClusterFact } from "../../src/events/cluster.ts"
import { typePrefix } from "../../src/events/envelope.ts"
import { HostFact } from "../../src/events/host.ts"
import { KeyringFact } from "../../src/events/keyring.ts"
import { MigrationFact } from "../../src/events/migration.ts"
import { NodeFact } from "../../src/events/node.ts"
import { PeerFact } from "../../src/events/peer.ts"
import { PlacementFact } from "../../src/events/placement.ts"
import { RebalancerFact } from "../../src/events/rebalancer.ts"
import { VmFact } from "../../src/events/vm.ts"
import { allowedCommands, describe } from "../../src/kernel/statechart.ts"
import { answeredType, deserialize, emptyActor, serialize } from "../../src/kernel/turn.ts"
import type { ActorState } from "../../src/kernel/turn.ts"
import { inputs } from "./messages.ts"
import { input, kindOf } from "./specification.ts"

const facts = {
  vm: VmFact,
  host: HostFact,
  placement: PlacementFact,
  migration: MigrationFact,
  node: NodeFact,
  peer: PeerFact,
  cluster: ClusterFact,
  keyring: KeyringFact,
  rebalancer: RebalancerFact,
  authority: AuthorityFact
} as const
const depth_max = 24
const states_max = 6000

const uncounted = { decisions: 0, samples: 0, id: 0, runs: 0, losses: 0, fencedMs: 0, moves: 0, last: null }

/** States that differ in what may happen next, and not in how often something has happened. */
const classOf = (actor: ActorState): string =>
  JSON.stringify([actor.chart.value, { ...(actor.chart.context as object), ...uncounted }])
    .replaceAll(/"recovering":[2-9]\d*/g, '"recovering":1')
    .replaceAll(/"crashes":\d+/g, (text) => (text === '"crashes":5' ? text : '"crashes":0'))

const leaves = (node: StateNode<any, any>): ReadonlyArray<string> => {
  const inner = Object.values(node.states)
  return inner.length === 0 ? [node.path.join(".")] : inner.flatMap((one) => leaves(one))
}

for (const name of Object.keys(facts) as Array<keyof typeof facts>) {
  test(`${name}: every reachable state × every input`, () => {
    const kind = kindOf(name)
    const isFact = Schema.is(facts[name] as Schema.Codec<unknown>)
    const first = emptyActor(kind, `${name}/${name === "migration" ? "m" : "web"}`)
    const seen = new Map([[classOf(first), first]])
    const reached = new Set<string>()
    const taken = new Set<string>()
    let frontier = [first]
    let pairs = 0
    for (let depth = 0; depth < depth_max && frontier.length > 0; depth++) {
      const next: Array<ActorState> = []
      for (const actor of frontier) {
        const state = describe(actor.chart)
        reached.add(state)
        for (const message of inputs[name] ?? []) {
          pairs++
          const { turn } = input(kind, actor, message)
          if (turn.outcome === "refuse") {
            assert.equal(turn.state, state)
            assert.deepEqual(turn.allowed, allowedCommands(kind, actor.chart))
            const allowed = turn.allowed.includes(message.type)
            assert.equal(
              allowed,
              turn.unmet.length > 0,
              `${state}: ${message.type} is refused without a reason`
            )
          }
          if (turn.outcome !== "record") continue
          for (const draft of turn.drafts) {
            const type = draft.type.slice(typePrefix.length)
            if (type === answeredType) continue
            assert.ok(
              isFact({ ...draft.data, type }),
              `${state}: ${message.type} → ${JSON.stringify(draft.data)}`
            )
            taken.add(type)
          }
          // What a snapshot keeps is all there is.
          const kept = deserialize(kind, actor.stream, serialize(turn.next))
          assert.equal(serialize(kept), serialize(turn.next))
          const key = classOf(turn.next)
          if (seen.has(key) || seen.size >= states_max) continue
          seen.set(key, turn.next)
          next.push(turn.next)
        }
      }
      frontier = next
    }
    assert.deepEqual(
      leaves(kind.chart.root).filter((leaf) => !reached.has(leaf)),
      [],
      "states that are never reached"
    )
    assert.deepEqual(
      kind.facts.filter((type) => !taken.has(type)),
      [],
      "facts that are never recorded"
    )
    console.log(`  ${name}: ${seen.size} states, ${pairs} pairs`)
  })
}
