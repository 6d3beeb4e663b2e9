/**
 * Dry runs: what a command would record and ask, through the same turns that would take it, with nothing kept.
 * Where a machine would be placed is found by running the placement actor's turns on the present view of the hosts;
 * what is in the way of a migration, by the checks that change nothing.
 */
import { Clock, Effect, Stream } from "effect"
import type { Context } from "effect"
import type { Message } from "../../events/envelope.ts"
import type { MigrationPolicy } from "../../events/requests.ts"
import { withoutPrefix } from "../../events/envelope.ts"
import type { Platform, VmSpec } from "../../events/vm.ts"
import type { Command, Kernel } from "../../kernel/kernel.ts"
import type { Considered } from "../../kernel/mailbox.ts"
import type { Agents } from "../../kernel/ports/agents.ts"
import type { Views } from "../../kernel/ports/views.ts"
import { describe } from "../../kernel/statechart.ts"
import { takeTurn } from "../../kernel/turn.ts"
import type { DryRun, PlacementPreview } from "./bodies.ts"

export interface PreviewPorts {
  readonly views: Context.Service.Shape<typeof Views>
  readonly agents: Context.Service.Shape<typeof Agents>
}

const check_maxMs = 30_000

type KernelShape = Context.Service.Shape<typeof Kernel>
interface VmContext {
  readonly spec: VmSpec | null
  readonly host: string | null
  readonly platform: Platform | null
}

const nothing: VmContext = { spec: null, host: null, platform: null }
const running = ({ platform }: VmContext) => (platform === null ? {} : { platform })

export const makePreview = (kernel: KernelShape, ports: PreviewPorts) =>
  Effect.fnUntraced(function* (command: Command, considered: Considered): Effect.fn.Return<DryRun> {
    const { actor, turn } = considered
    const recording = turn.outcome === "record" ? turn : null
    const asked = recording?.requests.map((one) => one.request) ?? []
    // The same command again, by its key, does nothing: nothing is in its way either.
    const isMigration = recording !== null && command.message.type === "migration.request"
    const placing = isMigration
      ? yield* migrationPlacing(kernel, command)
      : asked.flatMap((one) =>
          one.port === "actor" && one.command.type === "placement.request" ? [one] : []
        )[0]
    const placement = placing ? yield* previewPlacement(kernel, ports, command, placing) : null
    return {
      dryRun: true,
      stream: command.stream,
      stateBefore: describe(actor.chart),
      stateAfter: describe((recording?.next ?? actor).chart),
      wouldRecord: (recording?.drafts ?? []).map((draft) => ({
        type: withoutPrefix(draft.type),
        ...draft.data
      })),
      wouldAsk: asked,
      placement,
      blockers: isMigration ? yield* blockersOf(kernel, ports, command, placement) : null
    }
  })

interface Placing {
  readonly to: string
  readonly command: Message
}

/** The question a migration would put to the placement, from where its machine is now; null when it can't be put. */
const migrationPlacing = Effect.fnUntraced(function* (kernel: KernelShape, { message, stream }: Command) {
  const vm = String(message["vm"])
  const actor = yield* kernel.state(`vm/${vm}`).pipe(Effect.orElseSucceed(() => null))
  const context = (actor?.chart.context ?? nothing) as VmContext
  const { spec, host } = context
  if (spec === null || host === null) return null
  const pinned = message["to"] === undefined ? {} : { pinned: message["to"] }
  const { postCopy } = message["policy"] as MigrationPolicy
  const capabilities = postCopy ? { capabilities: ["post-copy"] } : {}
  const from = { purpose: "migrate", from: host, ...pinned, replyTo: stream }
  const question = { vm, spec, ...running(context), ...capabilities, ...from }
  return {
    to: `placement/preview-${vm}`.slice(0, 120),
    command: { type: "placement.request", ...question }
  } satisfies Placing
})

const previewPlacement = Effect.fnUntraced(function* (
  kernel: KernelShape,
  ports: PreviewPorts,
  command: Command,
  placing: Placing
): Effect.fn.Return<PlacementPreview | null> {
  const kind = kernel.kinds.find((one) => one.kind === "placement")
  const question: Command = { ...command, stream: placing.to, message: placing.command }
  const asked = yield* kernel.consider(question).pipe(Effect.orElseSucceed(() => null))
  if (!kind || asked?.turn.outcome !== "record") return null
  const { next, drafts, requests } = asked.turn
  const viewing = requests.find(({ request }) => request.port === "view")
  if (viewing?.request.port !== "view" || viewing.request.op !== "hosts") return null
  const { key, request } = viewing
  const view = yield* ports.views.hosts(0, request)
  const answer = {
    stream: placing.to,
    message: { type: "view.hosts", ...view },
    id: key,
    correlation: command.correlation,
    principal: command.principal,
    answers: { key, final: true }
  }
  const turn = takeTurn(kind, next, answer, yield* Clock.currentTimeMillis, drafts[0]?.node ?? "")
  if (turn.outcome !== "record") return null
  const { chosen, reason, candidates, others } = (turn.drafts[0]?.data ?? {}) as Partial<PlacementPreview>
  if (candidates === undefined) return null
  return {
    chosen: chosen ?? null,
    reason: reason ?? "",
    candidates,
    ...(others === undefined ? {} : { others })
  }
})

/** Empty when nothing that can be known now is in the migration's way. */
const blockersOf = Effect.fnUntraced(function* (
  kernel: KernelShape,
  ports: PreviewPorts,
  command: Command,
  placement: PlacementPreview | null
): Effect.fn.Return<ReadonlyArray<string>> {
  const vm = String(command.message["vm"])
  const migration = command.stream.slice("migration/".length)
  const lock: Command = { ...command, stream: `vm/${vm}`, message: { type: "vm.lock", migration } }
  const locked = yield* kernel.consider(lock).pipe(Effect.result)
  if (locked._tag === "Failure") return [locked.failure.message]
  if (placement === null) return [`vm/${vm} is on no host`]
  if (placement.chosen === null) return [placement.reason]
  const context = locked.success.actor.chart.context as VmContext
  const { spec } = context
  if (spec === null) return [`vm/${vm} has no specification`]
  const host = placement.chosen
  const checked = yield* ports.agents
    .perform(`check-${command.id}`, {
      port: "hypervisor",
      host,
      vm,
      op: "checkIncoming",
      spec,
      ...running(context)
    })
    .pipe(Stream.runLast, Effect.timeoutOption(check_maxMs), Effect.result)
  if (checked._tag === "Failure") return [`host ${host} can't be asked: ${checked.failure.reason}`]
  const last = checked.success._tag === "Some" ? checked.success.value : null
  if (last === null || last._tag === "None") return [`host ${host} did not answer the check`]
  if (last.value.type === "hypervisor.checked") return last.value.blockers
  return last.value.type === "hypervisor.failed" ? [`host ${host}: ${last.value.reason}`] : []
})
