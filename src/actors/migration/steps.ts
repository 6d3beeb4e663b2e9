/** What the states of a migration are made of. */
import type { MigrationCommand, MigrationFact } from "../../events/migration.ts"
import type { Report, Request } from "../../events/requests.ts"
import { recorder } from "../../kernel/actor.ts"
import type { Of, Stamped } from "../../kernel/actor.ts"
import type { MigrationContext } from "./requests.ts"

export type Event = Stamped<MigrationCommand> | Stamped<Report> | Stamped<MigrationFact>
export type Failed = Of<Event, "hypervisor.failed">

export const record = recorder<MigrationContext, Event, MigrationFact>()

export function ask(build: (context: MigrationContext) => Request) {
  return { type: "request", params: ({ context }: { context: MigrationContext }) => build(context) } as never
}

export const handedOver = record("hypervisor.handedOver", ({ event: { postCopy } }) => ({
  type: "migration.handedOver",
  ...(postCopy === undefined ? {} : { postCopy })
}))

export const failedOp = (op: string) => ({ type: "answersOp" as const, params: { op } })
