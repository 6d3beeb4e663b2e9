/**
 * `novacron-console/1`: what goes over an upgraded HTTP connection (RFC 9110, 7.8), in the frames of link/frames.ts.
 *
 *      client                                   server
 *        | GET …/console/<session>, Upgrade       |
 *        |--------------------------------------->|
 *        |                     101, then frames   |
 *        |  data: what is typed  -->              |
 *        |              <-- data: what is said    |
 *        |              <-- notice: ConsoleNotice |   `closed` is the last one
 *        |              <-- ping, pong -->        |   each at its own pace
 */
import { Schema } from "effect"
import { text } from "../../events/fields.ts"

export const consoleProtocol = "novacron-console/1"

/** Longest frame of either side, counted as a frame's length is. */
export const consoleFrameBytes_max = 64 * 1024
/** Octets of one data frame; a whole frame stays below the limit. */
export const consolePieceBytes_max = 32 * 1024
export const pingEveryMs = 15_000
/** Silence after which the other side counts as gone. */
export const silenceMs = 45_000

export const ConsoleNotice = Schema.Union([
  /** The guest's console is connected: at first, after a migration on another host, or again after a restart. */
  Schema.Struct({ type: Schema.tag("connected"), host: text(63), simulated: Schema.Boolean }),
  /** So much was not sent, because it was read too slowly. */
  Schema.Struct({ type: Schema.tag("skipped"), bytes: Schema.Int }),
  Schema.Struct({
    type: Schema.tag("closed"),
    cause: Schema.Literals(["ended", "taken", "lost", "stopping", "protocol"]),
    reason: text(2048)
  })
])
export type ConsoleNotice = typeof ConsoleNotice.Type
