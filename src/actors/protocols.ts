/** The protocols by which a group can agree, as a member of one is run by them (`src/kernel/group-member.ts`). */
import { raftActor } from "./raft/chart.ts"
import { wakesAtMs } from "./raft/decide.ts"
import { keptAs } from "./raft/step.ts"
import type { RaftContext } from "./raft/step.ts"

export const raftProtocol = {
  kind: raftActor,
  stateOf: (context: unknown) => context as RaftContext,
  wakesAtMs: (role: string, context: unknown) => wakesAtMs(role, context as RaftContext),
  keptAs: (context: unknown) => keptAs(context as RaftContext)
}
