/**
 * Certificates and tokens as the group decides on them: what is asked here goes to the actor `authority/nodes`, and only what
 * that has recorded is signed, of what its fact says. So it does not matter which voter is asked, nor whether twice.
 */
import { X509Certificate } from "node:crypto"
import { Clock, Effect, Latch, Schedule } from "effect"
import {
  admitProblem,
  authorityStream,
  keyProblem,
  newsOf,
  noAuthority,
  oldEntries_max,
  renewProblem
} from "../../events/authority.ts"
import type { AuthorityCommand, AuthorityState, KnownName } from "../../events/authority.ts"
import type { Principal } from "../../events/envelope.ts"
import type { Kernel } from "../../kernel/kernel.ts"
import type { SubmitError } from "../../kernel/refusals.ts"
import { requestedKey } from "../ca.ts"
import type { NodeIdentity } from "../ca.ts"
import { mayVote, newSerial, nodeLifetimeMs, spkiHash } from "./certificate.ts"
import { CaError } from "./files.ts"
import type { HeldKey } from "./held-key.ts"
import type { Legacy } from "./legacy.ts"
import { tokenHash } from "./tokens.ts"

/** What a node is asked for before it has taken over what its own folder has waits for so long. */
const preparedTimeoutMs = 10_000

/** A group may have to choose a leader first. */
const freshAgainMs = 250
const freshTries_max = 30

const unavailable = (reason: string) => new CaError({ code: "unavailable", path: authorityStream, reason })

/** A refusal is left to the caller, who knows why. */
const notDecided = (error: SubmitError): CaError | "refused" =>
  error._tag === "CommandRefused" ? "refused" : unavailable(error.message.slice(0, 1000))

export class Register {
  readonly #kernel: Kernel["Service"]
  readonly #key: HeldKey
  readonly #prepared: Latch.Latch = Latch.makeUnsafe(false)

  constructor(kernel: Kernel["Service"], key: HeldKey) {
    this.#kernel = kernel
    this.#key = key
  }

  get #authority() {
    const { authority } = this.#key
    return authority === null
      ? Effect.fail(unavailable("the authority's key is not at this node, or not yet; ask another voter"))
      : Effect.succeed(authority)
  }

  /** As this node has it now. */
  readonly #local: Effect.Effect<AuthorityState, CaError> = Effect.suspend(() =>
    this.#kernel.state(authorityStream)
  ).pipe(
    Effect.map((actor) => (actor.revision < 0 ? noAuthority : (actor.chart.context as AuthorityState))),
    Effect.mapError((error) => unavailable(error.message.slice(0, 1000)))
  )

  /** Not older than the moment of asking. */
  readonly state: Effect.Effect<AuthorityState, CaError> = Effect.suspend(() => this.#kernel.fresh).pipe(
    Effect.retry({ schedule: Schedule.spaced(freshAgainMs), times: freshTries_max }),
    Effect.mapError((error) => unavailable(error.message.slice(0, 1000))),
    Effect.andThen(this.#local)
  )

  #say(message: AuthorityCommand, id: string, principal: Principal) {
    const command = { stream: authorityStream, message, id, correlation: id, principal }
    return Effect.mapError(this.#kernel.submit(command), notDecided)
  }

  /** What is not there yet is decided on and recorded: nothing of an unknown token is, so that strangers can't fill the journal. */
  join(secret: string, node: string, request: Buffer) {
    return Effect.gen({ self: this }, function* () {
      yield* this.#ready
      const authority = yield* this.#authority
      const spki = spkiHash(yield* requestedKey(node, request))
      const token = tokenHash(secret)
      const before = yield* this.state
      const used = before.tokens[token]?.usedBy
      // The answer was lost, and the same node asks again for the same key.
      const isAgain = used?.node === node && used.spki === spki
      if (!isAgain) {
        const issued = { node, spki, ...(yield* this.#newCertificate(authority.notAfterMs)) }
        const refused = (state: AuthorityState) =>
          Effect.flatMap(Clock.currentTimeMillis, (timeMs) => {
            const problem = admitProblem(state, { token, node, spki }, timeMs)
            if (problem === null) return Effect.void
            const path = problem.code === "name-taken" ? "node" : "token"
            return Effect.fail(new CaError({ path, ...problem }))
          })
        yield* refused(before)
        const id = `join/${token.slice(0, 32)}/${spki}`
        yield* this.#say({ type: "authority.admit", token, ...issued }, id, {
          kind: "node",
          name: node
        }).pipe(
          Effect.catch((error) =>
            error === "refused" ? Effect.flatMap(this.#local, refused) : Effect.fail(error)
          )
        )
      }
      return yield* this.#sign(node, spki, request)
    })
  }

  /** For who shows, on its connection, the certificate with the serial `present`. */
  renew(node: string, present: string, request: Buffer) {
    return Effect.gen({ self: this }, function* () {
      yield* this.#ready
      const authority = yield* this.#authority
      const spki = spkiHash(yield* requestedKey(node, request))
      const before = yield* this.state
      if (before.names[node]?.spki !== spki) {
        const issued = { node, spki, ...(yield* this.#newCertificate(authority.notAfterMs)) }
        const refused = (state: AuthorityState) =>
          Effect.flatMap(Clock.currentTimeMillis, (timeMs) => {
            const reason = renewProblem(state, { node, present }, timeMs)
            return reason === null
              ? Effect.void
              : Effect.fail(new CaError({ code: "invalid", path: "node", reason }))
          })
        yield* refused(before)
        const message = { type: "authority.renew", present, ...issued } as const
        yield* this.#say(message, `renew/${spki}`, { kind: "node", name: node }).pipe(
          Effect.catch((error) =>
            error === "refused" ? Effect.flatMap(this.#local, refused) : Effect.fail(error)
          )
        )
      }
      return yield* this.#sign(node, spki, request)
    })
  }

  /** Record that the key goes to this voter; nothing when it may not. */
  handKey(to: string, serial: string, id: string) {
    return Effect.gen({ self: this }, function* () {
      const authority = yield* this.#authority
      const state = yield* this.state
      const reason = keyProblem(state, { to, serial })
      if (reason !== null) return yield* new CaError({ code: "invalid", path: "node", reason })
      yield* this.#say({ type: "authority.handKey", to, serial }, id, { kind: "node", name: to }).pipe(
        Effect.mapError((error) => (error === "refused" ? unavailable("it was taken back meanwhile") : error))
      )
      return { key: authority.exportKey(), certificate: authority.certificate }
    })
  }

  /**
   * What is at this node and not in the journal: its own certificate, which it signed itself when there was no journal yet, and
   * files of an earlier release. Joins wait for it.
   */
  prepare(identity: NodeIdentity, legacy: Legacy | null) {
    return Effect.gen({ self: this }, function* () {
      const certificate = new X509Certificate(identity.certificate)
      const { node } = identity
      const principal: Principal = { kind: "node", name: node }
      const known = yield* this.state
      const serial = certificate.serialNumber
      if (this.#key.authority !== null && known.names[node]?.serials.includes(serial) !== true) {
        const issued = {
          serial,
          spki: spkiHash(certificate.publicKey),
          notAfterMs: Date.parse(certificate.validTo)
        }
        const message = { type: "authority.claim", node, ...issued, votes: mayVote(certificate) } as const
        yield* orKnown(this.#say(message, `claim/${node}/${serial}`, principal))
      }
      if (legacy !== null) yield* this.#takeOver(legacy, principal)
      this.#prepared.openUnsafe()
    })
  }

  #takeOver(legacy: Legacy, principal: Principal) {
    return Effect.gen({ self: this }, function* () {
      const { names, tokens } = newsOf(yield* this.state, legacy)
      for (let at = 0; at < Math.max(names.length, tokens.length); at += oldEntries_max) {
        const part = <A>(all: ReadonlyArray<A>) => all.slice(at, at + oldEntries_max)
        const message = { type: "authority.takeOver", names: part(names), tokens: part(tokens) } as const
        const named = message.names[0]?.node ?? message.tokens[0]?.token.slice(0, 32)
        yield* orKnown(this.#say(message, `take-over/${principal.name}/${named}`, principal))
      }
    })
  }

  get #ready() {
    return this.#prepared.await.pipe(
      Effect.timeoutOrElse({
        duration: preparedTimeoutMs,
        orElse: () => Effect.fail(unavailable("this node does not know yet which names are taken"))
      })
    )
  }

  #newCertificate(authorityEndsMs: number) {
    return Effect.map(Clock.currentTimeMillis, (nowMs) => ({
      serial: newSerial(),
      notAfterMs: Math.min(nowMs + nodeLifetimeMs, authorityEndsMs)
    }))
  }

  #sign(node: string, spki: string, request: Buffer) {
    return Effect.gen({ self: this }, function* () {
      const authority = yield* this.#authority
      const name: KnownName | undefined = (yield* this.#local).names[node]
      if (name === undefined || name.spki !== spki || name.isRevoked) {
        const reason = `the name ${node} went to another certificate, or was taken back, meanwhile`
        return yield* new CaError({ code: "name-taken", path: "node", reason })
      }
      return yield* authority.sign(node, request, name)
    })
  }
}

/** A refusal says that it is known already. */
const orKnown = <A>(said: Effect.Effect<A, CaError | "refused">): Effect.Effect<void, CaError> =>
  said.pipe(
    Effect.asVoid,
    Effect.catch((error) => (error === "refused" ? Effect.void : Effect.fail(error)))
  )
