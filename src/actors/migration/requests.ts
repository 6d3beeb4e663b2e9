/** What a migration remembers, and what it asks of the hosts and of the machine. */
import type { MigrationPolicy, Request } from "../../events/requests.ts"
import type { Platform, VmSpec } from "../../events/vm.ts"

export interface MigrationContext {
  readonly id: string
  readonly vm: string
  readonly pinned: string | null
  readonly policy: MigrationPolicy | null
  readonly from: string | null
  /** The placement whose reservation holds the room at the source. */
  readonly sourceDecision: string | null
  readonly to: string | null
  readonly address: string
  /** The placement whose reservation holds the room at the destination. */
  readonly decision: string | null
  readonly spec: VmSpec | null
  /** What the machine runs on; null when its machine does not know. */
  readonly platform: Platform | null
  readonly channels: ReadonlyArray<string>
  readonly cancelled: boolean
  readonly cancelReason: string
  /** The guest runs at the destination before all of its memory is there. */
  readonly postCopy: boolean
  readonly measured: boolean
  /** By post-copy the source's side ended: the destination has to be asked whether all has come. */
  readonly lost: boolean
  readonly ownerChanged: boolean
  /** It is not known that the guest runs where it is left. */
  readonly doubtful: boolean
  readonly outcome: "completed" | "cancelled" | "failed"
  readonly reason: string
}

export const none: MigrationContext = {
  id: "",
  vm: "",
  pinned: null,
  policy: null,
  from: null,
  sourceDecision: null,
  to: null,
  address: "",
  decision: null,
  spec: null,
  platform: null,
  channels: [],
  cancelled: false,
  cancelReason: "",
  postCopy: false,
  measured: false,
  lost: false,
  ownerChanged: false,
  doubtful: false,
  outcome: "completed",
  reason: ""
}

const tell = (to: string, command: { type: string; [key: string]: unknown }): Request => ({
  port: "actor",
  to,
  command
})

const at = (host: string | null, { vm }: MigrationContext) =>
  ({ port: "hypervisor", host: host as string, vm }) as const

export const lock = ({ vm, id }: MigrationContext): Request =>
  tell(`vm/${vm}`, { type: "vm.lock", migration: id })

export const unlock = ({ vm, id, doubtful }: MigrationContext): Request =>
  tell(`vm/${vm}`, { type: "vm.unlock", migration: id, doubtful })

export const handOver = ({ vm, id, to, decision }: MigrationContext): Request =>
  tell(`vm/${vm}`, { type: "vm.handOver", migration: id, host: to, decision })

const running = ({ platform }: MigrationContext) => (platform === null ? {} : { platform })

export const askPlacement = (context: MigrationContext): Request => {
  const { id, vm, spec, from, pinned, policy } = context
  return tell(`placement/${id}`, {
    type: "placement.request",
    vm,
    spec,
    ...running(context),
    ...(policy?.postCopy === true ? { capabilities: ["post-copy"] } : {}),
    purpose: "migrate",
    from,
    replyTo: `migration/${id}`,
    ...(pinned === null ? {} : { pinned })
  })
}

/** `leftover` says what of the machine could not be removed there; the host removes it when it can. */
export const releaseDestination = ({ vm, to, decision }: MigrationContext, leftover: string): Request =>
  tell(`host/${to}`, { type: "host.release", reservation: decision, vm, leftover })

export const releaseSource = ({ vm, from, sourceDecision }: MigrationContext, leftover: string): Request =>
  tell(`host/${from}`, { type: "host.release", reservation: sourceDecision, vm, leftover })

export const checkDestination = (context: MigrationContext): Request => ({
  ...at(context.to, context),
  op: "checkIncoming",
  spec: context.spec as VmSpec,
  ...running(context)
})

export const prepare = (context: MigrationContext): Request => ({
  ...at(context.to, context),
  op: "prepareIncoming",
  spec: context.spec as VmSpec,
  ...running(context),
  migration: context.id,
  from: context.from as string,
  timeoutMs: (context.policy as MigrationPolicy).timeoutMs,
  postCopy: (context.policy as MigrationPolicy).postCopy
})

export const migrate = (context: MigrationContext): Request => ({
  ...at(context.from, context),
  op: "migrate",
  migration: context.id,
  policy: context.policy as MigrationPolicy,
  address: context.address,
  channels: context.channels
})

const resumeAt = (context: MigrationContext, host: string | null): Request => ({
  ...at(host, context),
  op: "resume"
})

export const resumeDestination = (context: MigrationContext): Request => resumeAt(context, context.to)

export const settleArrival = (context: MigrationContext): Request => ({
  ...at(context.to, context),
  op: "settleArrival",
  migration: context.id
})

/** After a hand-over that is taken back the guest goes on; after one by post-copy its memory is on neither side. */
export const keepSource = (context: MigrationContext): Request =>
  context.postCopy
    ? { ...at(context.from, context), op: "stop", force: true }
    : resumeAt(context, context.from)

export const clearSource = (context: MigrationContext): Request => ({
  ...at(context.from, context),
  op: "remove"
})

export const stopTransfer = (context: MigrationContext): Request => ({
  ...at(context.from, context),
  op: "cancelMigration",
  migration: context.id
})

export const abandonDestination = (context: MigrationContext): Request => ({
  ...at(context.to, context),
  op: "abandonIncoming",
  migration: context.id
})
