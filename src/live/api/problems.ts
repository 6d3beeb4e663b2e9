/** What the API answers when it doesn't do something: RFC 9457 problems with stable types. */
import { Schema } from "effect"
import { HttpApiError } from "effect/http-api"
import { Issue } from "../config/issues.ts"

const urn = <const Name extends string>(name: Name) => `urn:novacron:problem:${name}` as const

/** The request's body, path, query or headers are not what the API takes; every error is in `errors`. */
export class InvalidRequest extends HttpApiError.Problem<InvalidRequest>()(
  "InvalidRequest",
  { type: urn("invalid-request"), status: 400, title: "The request is not valid" },
  { errors: Schema.Array(Issue) }
) {}

export class Unauthenticated extends HttpApiError.Problem<Unauthenticated>()("Unauthenticated", {
  type: urn("unauthenticated"),
  status: 401,
  title: "A valid bearer token is needed"
}) {}

export class NotFound extends HttpApiError.Problem<NotFound>()(
  "NotFound",
  { type: urn("not-found"), status: 404, title: "There is no such thing" },
  { resource: Schema.String }
) {}

/** The thing is not in a state for this command. */
export class Refused extends HttpApiError.Problem<Refused>()(
  "Refused",
  { type: urn("refused"), status: 409, title: "The command is refused in this state" },
  {
    stream: Schema.String,
    command: Schema.String,
    state: Schema.String,
    /** The commands that this state allows. */
    allowed: Schema.Array(Schema.String),
    /** Conditions of the command that don't hold, when the state would allow it. */
    unmet: Schema.Array(Schema.String)
  }
) {}

/** The idempotency key was used for another command before. */
export class KeyReused extends HttpApiError.Problem<KeyReused>()(
  "KeyReused",
  {
    type: urn("idempotency-key-reused"),
    status: 422,
    title: "The idempotency key belongs to another command"
  },
  { operation: Schema.String, stream: Schema.String, command: Schema.String }
) {}

export class Conflict extends HttpApiError.Problem<Conflict>()("Conflict", {
  type: urn("conflict"),
  status: 409,
  title: "Something else changed it at the same time; send the command again"
}) {}

export class BodyTooLarge extends HttpApiError.Problem<BodyTooLarge>()(
  "BodyTooLarge",
  { type: urn("body-too-large"), status: 413, title: "The request body is too large" },
  { limitBytes: Schema.Int }
) {}

export class UnsupportedMediaType extends HttpApiError.Problem<UnsupportedMediaType>()(
  "UnsupportedMediaType",
  {
    type: urn("unsupported-media-type"),
    status: 415,
    title: "The body has to be application/json"
  }
) {}

/** The endpoint speaks another protocol than HTTP from here on, and has to be asked for it. */
export class UpgradeRequired extends HttpApiError.Problem<UpgradeRequired>()(
  "UpgradeRequired",
  {
    type: urn("upgrade-required"),
    status: 426,
    title: "The connection has to be upgraded"
  },
  { protocol: Schema.String }
) {}

/** Too many requests, commands or subscribers at once. Nothing was kept; the same may be sent again. */
export class Overloaded extends HttpApiError.Problem<Overloaded>()(
  "Overloaded",
  { type: urn("overloaded"), status: 503, title: "Too much at once; send it again later" },
  { retryAfterSeconds: Schema.Int }
) {}

export class StoreUnavailable extends HttpApiError.Problem<StoreUnavailable>()("StoreUnavailable", {
  type: urn("store-unavailable"),
  status: 503,
  title: "The event store can't do its work"
}) {}

/** No majority of the cluster, or no leader, can be asked now. The same command may be sent again, here or at another node. */
export class Unavailable extends HttpApiError.Problem<Unavailable>()(
  "Unavailable",
  { type: urn("unavailable"), status: 503, title: "The cluster can't decide now; send it again" },
  {
    node: Schema.String,
    /** Whether it may have taken effect: then the same idempotency key gets that answer. */
    mayHappen: Schema.Boolean,
    retryAfterSeconds: Schema.Int
  }
) {}

export class Internal extends HttpApiError.Problem<Internal>()("Internal", {
  type: urn("internal"),
  status: 500,
  title: "An error in the program itself; the log has it"
}) {}

/** Of an `Unavailable`: the very same request may be sent again, and is best sent again soon. */
export const sendAgainHeader = "novacron-send-again"

/** Every endpoint may answer with these. */
export const everywhere = [
  InvalidRequest,
  Unauthenticated,
  Overloaded,
  StoreUnavailable,
  Unavailable,
  Internal
] as const
/** Those that ask something of an actor, with these too. */
export const onCommand = [
  ...everywhere,
  NotFound,
  Refused,
  KeyReused,
  Conflict,
  BodyTooLarge,
  UnsupportedMediaType
] as const

const problems = [
  InvalidRequest,
  Unauthenticated,
  NotFound,
  Refused,
  KeyReused,
  Conflict,
  BodyTooLarge,
  UnsupportedMediaType,
  UpgradeRequired,
  Overloaded,
  StoreUnavailable,
  Unavailable,
  Internal
] as const

export type Problem = InstanceType<(typeof problems)[number]>

export const isProblem = (error: unknown): error is Problem => problems.some((one) => error instanceof one)
