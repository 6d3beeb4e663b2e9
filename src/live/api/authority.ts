/** The certificate authority as the API shows it, and what people may ask of it. */
import { Clock, Effect } from "effect"
import { authorityStream, isOpen, noAuthority } from "../../events/authority.ts"
import type { AuthorityState } from "../../events/authority.ts"
import type { Kernel } from "../../kernel/kernel.ts"
import { StoreUnavailable } from "./problems.ts"

/** As it is at this node. */
export interface AuthorityHere {
  readonly hash: string
  /** PEM. */
  readonly certificate: string
  readonly hasKey: () => boolean
}

interface MakeToken {
  readonly payload: {
    readonly token: string
    readonly node?: string | null
    readonly votes: boolean
    readonly lifetimeMs: number
    readonly reason: string
  }
}

interface Revoke {
  readonly params: { readonly name: string }
  readonly payload: { readonly reason?: string } | null
}

export const authoritySayings = {
  makeToken: ({ payload }: MakeToken) => ({
    stream: authorityStream,
    message: { type: "authority.makeToken", ...payload, node: payload.node ?? null }
  }),
  revoke: ({ params, payload }: Revoke) => ({
    stream: authorityStream,
    message: { type: "authority.revoke", node: params.name, reason: payload?.reason ?? "" }
  })
}

export const makeAuthorityReads = (kernel: Kernel["Service"], here: AuthorityHere | null) => {
  const state = Effect.suspend(() => kernel.state(authorityStream)).pipe(
    Effect.map((actor) => (actor.revision < 0 ? noAuthority : (actor.chart.context as AuthorityState))),
    Effect.mapError((error) => new StoreUnavailable({ detail: error.message }))
  )
  const now = Effect.zip(state, Clock.currentTimeMillis)
  return {
    status: Effect.map(now, ([{ tokens, names, keyHolders }, nowMs]) => {
      if (here === null) return null
      const openTokens = Object.values(tokens).filter((one) => isOpen(one, nowMs)).length
      const { hash, certificate } = here
      return {
        hash,
        certificate,
        hasKey: here.hasKey(),
        keyHolders,
        names: Object.keys(names).length,
        openTokens
      }
    }),
    names: Effect.map(now, ([{ names }, nowMs]) =>
      Object.entries(names)
        .map(([name, { serial, votes, issuedMs, notAfterMs, token, isRevoked }]) => {
          const state = isRevoked
            ? ("revoked" as const)
            : notAfterMs > nowMs
              ? ("valid" as const)
              : ("ended" as const)
          return { name, state, serial, votes, issuedMs, notAfterMs, token }
        })
        .sort((a, b) => (a.name < b.name ? -1 : 1))
    ),
    tokens: Effect.map(now, ([{ tokens }, nowMs]) =>
      Object.entries(tokens)
        .map(([token, { node, votes, expiresMs, usedBy }]) => {
          const state =
            usedBy !== null ? ("used" as const) : expiresMs > nowMs ? ("open" as const) : ("ended" as const)
          return { token, state, node, votes, expiresMs, usedBy: usedBy?.node ?? null }
        })
        .sort((a, b) => a.expiresMs - b.expiresMs)
    )
  }
}
