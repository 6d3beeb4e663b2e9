/** Who is in this node's group and where, for what is beside the consensus itself: links, agents, joining. */
import { Context } from "effect"
import type { Effect } from "effect"

export class Directory extends Context.Service<
  Directory,
  {
    /** Voters, those on their way out, and learners; nobody before this node is in a group. */
    readonly members: () => ReadonlyArray<string>
    /** Nodes that speak the group's protocol with this one now, by certificates with which they may vote. */
    readonly connected: () => ReadonlyArray<string>
    /** Where that node's endpoint is, as far as it is known. */
    readonly addressOf: (node: string) => string | null
    /** Ends, with the reason, when this node takes no part any more. */
    readonly broken: Effect.Effect<string>
    /** Why this node is no member any more; null while it may be one. */
    readonly removed: () => string | null
    /** It has learned that it was removed: it takes no part any more, and says so to whoever asks. */
    readonly leave: (reason: string) => void
  }
>()("novacron/live/consensus/Directory") {}
