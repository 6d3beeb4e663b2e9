/** `novacron rebalance …` */
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { formatDuration } from "../live/config/duration.ts"
import { withApi } from "./connection.ts"
import { duration, mutate, mutationFlags } from "./mutate.ts"
import { output } from "./output.ts"

const whole = (name: string, about: string, standard: number, most: number) =>
  Flag.Int(name).pipe(
    Flag.withDescription(`${about}, ${standard} unless told`),
    Flag.withMetavar("N"),
    Flag.withDefault(standard),
    Flag.filterMap(
      (count) => (count >= 1 && count <= most ? Option.some(count) : Option.none()),
      (count) => `${count}: a whole number from 1 to ${most}`
    )
  )

const start = Command.make(
  "start",
  {
    shadow: Flag.Boolean("shadow").pipe(
      Flag.withDescription("Decide and record, and move nothing"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    every: duration("every", "How long between two looks at the hosts", "5m"),
    margin: whole("margin", "So many points above the mean a host may have promised", 20, 100),
    hold: whole("hold", "At so many looks in a row it has to be beyond that", 3, 100),
    atOnce: whole("at-once", "Machines that are moved after one look", 2, 16),
    cooldown: duration("cooldown", "How long a machine that was moved stays", "1h"),
    moveTimeout: duration("move-timeout", "How long a move may take before it is given up", "30m"),
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ shadow, every, margin, hold, atOnce, cooldown, moveTimeout, ...flags }) {
    const payload = {
      shadow,
      everyMs: every,
      marginPercent: margin,
      hold,
      movesAtOnce: atOnce,
      cooldownMs: cooldown,
      moveTimeoutMs: moveTimeout
    }
    yield* mutate(flags, "start the rebalancer", (calls, request) =>
      calls.rebalancer.start({ ...request, payload })
    )
  })
).pipe(
  Command.withDescription("Relieve hosts that have promised much more than the others, by live migrations")
)

const stop = Command.make(
  "stop",
  {
    reason: Flag.String("reason").pipe(
      Flag.withDescription("Why, for the journal"),
      Flag.withMetavar("TEXT"),
      Flag.withDefault("")
    ),
    ...mutationFlags
  },
  Effect.fnUntraced(function* ({ reason, ...flags }) {
    yield* mutate(flags, "stop the rebalancer", (calls, request) =>
      calls.rebalancer.stop({ ...request, payload: { reason } })
    )
  })
).pipe(Command.withDescription("Move no more machines; those under way go on"))

const show = Command.make(
  "show",
  {},
  Effect.fnUntraced(function* () {
    const to = yield* output
    const status = yield* withApi((calls) => calls.rebalancer.show({ query: {} }))
    to.either(status, () => {
      const { state, policy, moves, last } = status
      if (policy === null) to.line(`off; ${moves} moves were decided`)
      else {
        const { shadow, everyMs, marginPercent, hold, movesAtOnce, cooldownMs } = policy
        to.line(
          `${shadow ? "in its shadow" : "on"}, ${state}: every ${formatDuration(everyMs)}, ${marginPercent} points above the mean at ${hold} looks in a row, ` +
            `${movesAtOnce} at once, none again within ${formatDuration(cooldownMs)}; ${moves} moves were decided`
        )
      }
      if (last === null) return to.note("it has not decided anything yet")
      to.line(`last, at ${new Date(last.timeMs).toISOString()}: ${last.reason}`)
      for (const { vm, reason } of last.moves)
        to.line(`${vm} ${last.shadow ? "would go" : "goes"}: ${reason}`)
      if (last.tooFull.length > 0)
        to.table(last.tooFull, [
          { head: "HOST", of: ({ host }) => host },
          { head: "PROMISED %", of: ({ percent }) => percent },
          { head: "LOOKS", of: ({ held }) => held },
          { head: "WHY NOTHING MOVES", of: ({ stays }) => stays }
        ])
    })
  })
).pipe(Command.withDescription("Say how it stands, and what it decided last"))

export const rebalance = Command.make("rebalance").pipe(
  Command.withDescription("Even out what hosts have promised"),
  Command.withSubcommands([start, stop, show])
)
