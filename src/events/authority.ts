/**
 * The cluster's certificate authority: who made which token, who joined with it, and which certificate belongs to which name.
 * A token is only ever named by the SHA-256 of its secret, a key by that of its public half.
 */
import { Schema } from "effect"
import { int, Name, text, withDefault } from "./fields.ts"

/** There is one. */
export const authorityStream = "authority/nodes"

const dayMs = 24 * 3600 * 1000
export const tokenLifetimeMs_max = 30 * dayMs
/** So many tokens may be open at once, and so many be remembered, used ones until they would have ended. */
export const openTokens_max = 1000
const tokens_max = 10_000
/** Names that have a certificate, and certificates that were taken back and have not ended. */
const names_max = 20_000
export const revoked_max = 20_000
/** Certificates of one name that may still be shown: a renewal whose answer was lost leaves the one before in use. */
const serials_max = 8
const lists_max = 500

/** SHA-256 of a token's secret, hexadecimal. */
export const TokenHash = Schema.String.check(
  Schema.isPattern(/^[0-9a-f]{64}$/, { expected: "a SHA-256, 64 hexadecimal digits" })
)
/** SHA-256 of a public key, base64url. */
const KeyHash = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9_-]{43}$/, { expected: "a SHA-256, base64url" })
)
/** As OpenSSL prints it. */
export const Serial = Schema.String.check(
  Schema.isPattern(/^[0-9A-F]{1,40}$/, { expected: "a serial number, hexadecimal" })
)
const Time = int(0, Number.MAX_SAFE_INTEGER)
const reason = withDefault(text(256), "")

/** What a certificate says beside the name. */
const issued = { node: Name, serial: Serial, spki: KeyHash, notAfterMs: Time }
const role = { votes: Schema.Boolean }

const token = {
  token: TokenHash,
  /** The only node that may use it; null for any new one. */
  node: Schema.NullOr(Name),
  /** Whether who joins with it may become a voter. */
  votes: Schema.Boolean
}

/** Of a data folder of before the journal had it. */
export const OldToken = Schema.Struct({ ...token, expiresMs: Time, isUsed: Schema.Boolean })
export type OldToken = typeof OldToken.Type
export const OldName = Schema.Struct({ ...issued, ...role })
export type OldName = typeof OldName.Type
const old = {
  names: Schema.Array(OldName).check(Schema.isMaxLength(lists_max)),
  tokens: Schema.Array(OldToken).check(Schema.isMaxLength(lists_max))
}
export const oldEntries_max = lists_max

export const AuthorityCommand = Schema.Union([
  Schema.Struct({
    type: Schema.tag("authority.makeToken"),
    ...token,
    lifetimeMs: int(1, tokenLifetimeMs_max),
    reason
  }),
  /** A token is shown, with a request for a certificate that would have this serial. */
  Schema.Struct({ type: Schema.tag("authority.admit"), token: TokenHash, ...issued }),
  /** By whom `present` names: the serial of the certificate that it shows. */
  Schema.Struct({ type: Schema.tag("authority.renew"), present: Serial, ...issued }),
  Schema.Struct({ type: Schema.tag("authority.revoke"), node: Name, reason }),
  /** By a node that has the key, of its own certificate. */
  Schema.Struct({ type: Schema.tag("authority.claim"), ...issued, ...role }),
  /** The key goes to this voter, who shows the certificate with this serial. */
  Schema.Struct({ type: Schema.tag("authority.handKey"), to: Name, serial: Serial }),
  Schema.Struct({ type: Schema.tag("authority.takeOver"), ...old })
])
export type AuthorityCommand = typeof AuthorityCommand.Type

export const AuthorityFact = Schema.Union([
  Schema.Struct({
    type: Schema.tag("authority.tokenMade"),
    ...token,
    lifetimeMs: int(1, tokenLifetimeMs_max),
    reason: text(256)
  }),
  /** The token is used up, and the name belongs to this key. */
  Schema.Struct({ type: Schema.tag("authority.admitted"), token: TokenHash, ...issued, ...role }),
  Schema.Struct({ type: Schema.tag("authority.renewed"), present: Serial, ...issued, ...role }),
  Schema.Struct({
    type: Schema.tag("authority.revoked"),
    node: Name,
    serials: Schema.Array(Serial),
    reason: text(256)
  }),
  Schema.Struct({ type: Schema.tag("authority.claimed"), ...issued, ...role }),
  Schema.Struct({ type: Schema.tag("authority.keyHanded"), to: Name, serial: Serial }),
  /** What files of an earlier release had; what the journal knew already stays as it is. */
  Schema.Struct({ type: Schema.tag("authority.takenOver"), ...old })
])
export type AuthorityFact = typeof AuthorityFact.Type

type Command<Type extends AuthorityCommand["type"]> = Extract<AuthorityCommand, { readonly type: Type }>

export interface KnownToken {
  readonly node: string | null
  readonly votes: boolean
  readonly expiresMs: number
  /** By whom; null while it is open. */
  readonly usedBy: { readonly node: string; readonly spki: string } | null
}

export interface KnownName {
  /** Of the last certificate. */
  readonly serial: string
  readonly spki: string
  readonly issuedMs: number
  readonly notAfterMs: number
  readonly votes: boolean
  /** Those that its holder may show, the last one included, the oldest first. */
  readonly serials: ReadonlyArray<string>
  /** With which it came to be the holder's; null where no token was used. */
  readonly token: string | null
  readonly isRevoked: boolean
}

export interface AuthorityState {
  readonly tokens: Readonly<Record<string, KnownToken>>
  readonly names: Readonly<Record<string, KnownName>>
  /** Certificates that were taken back and have not ended yet: until when they would be good. */
  readonly revoked: Readonly<Record<string, number>>
  /** Voters that were given the key. */
  readonly keyHolders: ReadonlyArray<string>
}

export const noAuthority: AuthorityState = { tokens: {}, names: {}, revoked: {}, keyHolders: [] }

type Problem = string | null
export interface AdmitProblem {
  readonly code: "token-refused" | "name-taken" | "limit"
  readonly reason: string
}

const count = (record: Readonly<Record<string, unknown>>) => Object.keys(record).length
const timeText = (timeMs: number) => new Date(timeMs).toISOString()

export const isOpen = (one: KnownToken, timeMs: number): boolean =>
  one.usedBy === null && one.expiresMs > timeMs

/** Why no such token can be made; null when it can. */
export function tokenProblem({ tokens }: AuthorityState, hash: string, timeMs: number): Problem {
  if (tokens[hash] !== undefined) return "there is such a token already"
  const alive = Object.values(tokens).filter(({ expiresMs }) => expiresMs > timeMs)
  const open = alive.filter(({ usedBy }) => usedBy === null).length
  if (open >= openTokens_max)
    return `${open} tokens are open; ${openTokens_max} are allowed, and they expire by themselves`
  return alive.length >= tokens_max ? `${alive.length} tokens are remembered, which is the limit` : null
}

/** Why this token does not let this node in with this key; null when it does. */
export function admitProblem(
  { tokens, names }: AuthorityState,
  { token: hash, node, spki }: Pick<Command<"authority.admit">, "token" | "node" | "spki">,
  timeMs: number
): AdmitProblem | null {
  const refused = (text: string): AdmitProblem => ({ code: "token-refused", reason: text })
  const known = tokens[hash]
  if (known === undefined || known.usedBy !== null)
    return refused("the token is not known, or it was used already")
  if (known.expiresMs <= timeMs) return refused(`the token expired at ${timeText(known.expiresMs)}`)
  if (known.node !== null && known.node !== node)
    return refused(`the token is for the node ${known.node}, not for ${node}`)
  const holder = names[node]
  const isHeld = holder !== undefined && holder.spki !== spki && holder.notAfterMs > timeMs
  if (isHeld && known.node !== node) {
    const text = `the name ${node} belongs to another key; a token made for ${node} moves it`
    return { code: "name-taken", reason: text }
  }
  if (holder !== undefined || !isFull(names, timeMs)) return null
  return { code: "limit", reason: `${names_max} names are taken, which is the limit` }
}

const isFull = (names: AuthorityState["names"], timeMs: number): boolean =>
  count(names) >= names_max &&
  Object.values(names).filter(({ notAfterMs }) => notAfterMs > timeMs).length >= names_max

/** Why the holder of the certificate `present` gets no new one for this name; null when it does. */
export function renewProblem(
  { names }: AuthorityState,
  { node, present }: Pick<Command<"authority.renew">, "node" | "present">,
  timeMs: number
): Problem {
  const holder = names[node]
  if (holder === undefined) return `no certificate of ${node} is known`
  if (holder.isRevoked) return `the certificate of ${node} was taken back`
  if (holder.notAfterMs <= timeMs) return `the certificate of ${node} ended at ${timeText(holder.notAfterMs)}`
  if (!holder.serials.includes(present)) return `the name ${node} belongs to another certificate by now`
  return null
}

/** Why nothing of this node can be taken back; null when it can. */
export function revokeProblem({ names, revoked }: AuthorityState, node: string): Problem {
  const holder = names[node]
  if (holder === undefined) return `no certificate of ${node} is known`
  if (holder.isRevoked) return `the certificate of ${node} was taken back already`
  return count(revoked) >= revoked_max
    ? `${revoked_max} certificates are taken back, which is the limit`
    : null
}

/** Why the key does not go to who shows this certificate; null when it does. */
export function keyProblem(
  { names }: AuthorityState,
  { to, serial }: Pick<Command<"authority.handKey">, "to" | "serial">
): Problem {
  const holder = names[to]
  if (holder === undefined || !holder.serials.includes(serial))
    return `the certificate that ${to} shows is none that is known`
  if (holder.isRevoked) return `the certificate of ${to} was taken back`
  return holder.votes ? null : `${to} may not vote`
}

/** Those of an earlier release's entries that are not known. */
export function newsOf(
  { names, tokens }: AuthorityState,
  old: Pick<Command<"authority.takeOver">, "names" | "tokens">
) {
  return {
    names: old.names.filter(({ node }) => names[node] === undefined),
    tokens: old.tokens.filter(({ token: hash }) => tokens[hash] === undefined)
  }
}

type Fact<Type extends AuthorityFact["type"]> = Extract<AuthorityFact, { readonly type: Type }>
type Issued = Pick<KnownName, "serial" | "spki" | "notAfterMs" | "votes">

const nameOf = (
  { serial, spki, notAfterMs, votes }: Issued,
  issuedMs: number,
  token: string | null
): KnownName => ({
  serial,
  spki,
  issuedMs,
  notAfterMs,
  votes,
  serials: [serial],
  token,
  isRevoked: false
})

const alive = <A>(record: Readonly<Record<string, A>>, endOf: (one: A) => number, timeMs: number) =>
  Object.fromEntries(Object.entries(record).filter(([, one]) => endOf(one) > timeMs))

/** Names whose certificates have ended are forgotten when there are many. */
const withName = (names: AuthorityState["names"], node: string, name: KnownName, timeMs: number) => ({
  ...(count(names) >= names_max ? alive(names, ({ notAfterMs }) => notAfterMs, timeMs) : names),
  [node]: name
})

/** Whoever had a name before, with another key, is not served any more: its certificates count as taken back. */
function movedFrom(
  state: AuthorityState,
  node: string,
  spki: string,
  timeMs: number
): AuthorityState["revoked"] {
  const before = state.names[node]
  if (before === undefined || before.spki === spki || before.notAfterMs <= timeMs) return state.revoked
  return withRevoked(state.revoked, before, timeMs)
}

const withRevoked = (revoked: AuthorityState["revoked"], name: KnownName, timeMs: number) => ({
  ...alive(revoked, (endMs) => endMs, timeMs),
  ...Object.fromEntries(name.serials.map((serial) => [serial, name.notAfterMs]))
})

export function tokenMade(
  state: AuthorityState,
  fact: Fact<"authority.tokenMade">,
  timeMs: number
): AuthorityState {
  const { token: hash, node, votes, lifetimeMs } = fact
  const tokens = alive(state.tokens, ({ expiresMs }) => expiresMs, timeMs)
  return {
    ...state,
    tokens: { ...tokens, [hash]: { node, votes, expiresMs: timeMs + lifetimeMs, usedBy: null } }
  }
}

export function admitted(
  state: AuthorityState,
  fact: Fact<"authority.admitted">,
  timeMs: number
): AuthorityState {
  const { token: hash, node, spki } = fact
  const known = state.tokens[hash]
  return {
    ...state,
    tokens:
      known === undefined ? state.tokens : { ...state.tokens, [hash]: { ...known, usedBy: { node, spki } } },
    names: withName(state.names, node, nameOf(fact, timeMs, hash), timeMs),
    revoked: movedFrom(state, node, spki, timeMs)
  }
}

export function renewed(
  state: AuthorityState,
  fact: Fact<"authority.renewed">,
  timeMs: number
): AuthorityState {
  const { node, present } = fact
  const before = state.names[node]
  if (before === undefined) return state
  // What was shown is in use, and what was issued since may be; the one that was shown stays whatever their number.
  const since = before.serials.slice(before.serials.indexOf(present) + 1)
  const serials = [present, ...[...since, fact.serial].slice(1 - serials_max)]
  return { ...state, names: { ...state.names, [node]: { ...nameOf(fact, timeMs, before.token), serials } } }
}

export function claimed(
  state: AuthorityState,
  fact: Fact<"authority.claimed">,
  timeMs: number
): AuthorityState {
  const { node, spki } = fact
  const keyHolders = state.keyHolders.includes(node) ? state.keyHolders : [...state.keyHolders, node]
  const revoked = movedFrom(state, node, spki, timeMs)
  return {
    ...state,
    keyHolders,
    revoked,
    names: withName(state.names, node, nameOf(fact, timeMs, null), timeMs)
  }
}

export function revoked(
  state: AuthorityState,
  { node }: Fact<"authority.revoked">,
  timeMs: number
): AuthorityState {
  const before = state.names[node]
  if (before === undefined) return state
  const names = { ...state.names, [node]: { ...before, isRevoked: true } }
  return { ...state, names, revoked: withRevoked(state.revoked, before, timeMs) }
}

export function keyHanded(state: AuthorityState, { to }: Fact<"authority.keyHanded">): AuthorityState {
  return state.keyHolders.includes(to) ? state : { ...state, keyHolders: [...state.keyHolders, to] }
}

export function takenOver(
  state: AuthorityState,
  fact: Fact<"authority.takenOver">,
  timeMs: number
): AuthorityState {
  const news = newsOf(state, fact)
  const names = news.names.map((one) => [one.node, nameOf(one, timeMs, null)])
  const tokens = news.tokens.map(({ token: hash, node, votes, expiresMs, isUsed }) => {
    // By whom is not in the old files: by nobody whose key could be the same.
    const usedBy = isUsed ? { node: node ?? "", spki: "" } : null
    return [hash, { node, votes, expiresMs, usedBy }]
  })
  return {
    ...state,
    names: { ...state.names, ...Object.fromEntries(names) },
    tokens: { ...state.tokens, ...Object.fromEntries(tokens) }
  }
}
