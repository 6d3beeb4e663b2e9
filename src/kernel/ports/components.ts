/** The components of the process that starts: what a node's actor asks for, and each is done once. */
import { Context, Effect } from "effect"
import type { ComponentReport, ComponentRequest } from "../../events/node.ts"

export interface Components {
  /**
   * Asking for the same attempt again is asking once. What an earlier process was asked for is over. `stop` is
   * answered by nobody who could still hear it: its report is written when the journal is about to be closed.
   */
  readonly perform: (request: ComponentRequest) => Effect.Effect<ComponentReport>
}

/** A process that has no components of its own says that every start is over. */
export const Components = Context.Reference<Components>("novacron/kernel/ports/Components", {
  defaultValue: () => ({
    perform: ({ start }) => Effect.succeed({ type: "component.over", start })
  })
})
