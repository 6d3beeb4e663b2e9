/** What the configuration of a node stands on, tried when it starts: folders, addresses, certificates, QEMU. */
import { createPrivateKey, X509Certificate } from "node:crypto"
import { constants } from "node:fs"
import { access, mkdir, readFile, stat } from "node:fs/promises"
import { dirname } from "node:path"
import { Effect, Layer, Schema } from "effect"
import { reasonOf } from "../live/components.ts"
import { runTool } from "../live/hypervisor/tools.ts"

/** A setting is well formed and can't be used on this machine as it is now. */
export class SettingRefused extends Schema.TaggedError<SettingRefused>()("SettingRefused", {
  key: Schema.String,
  value: Schema.String,
  allowed: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.key} is ${JSON.stringify(this.value)}: ${this.reason}; allowed: ${this.allowed}`
  }
}

export interface Setting {
  readonly key: string
  readonly value: string
  readonly allowed: string
}

const refused = (setting: Setting, cause: unknown) =>
  new SettingRefused({ ...setting, reason: reasonOf(cause).slice(0, 1000) })

/** The layer, with its failure told as that of the setting. */
export const standingOn = <A, E, R>(setting: Setting, layer: Layer.Layer<A, E, R>) =>
  layer.pipe(Layer.catch((error) => Layer.unwrap(Effect.fail(refused(setting, error)))))

/** The same of an effect. */
export const refusing =
  (setting: Setting) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(Effect.mapError((error) => refused(setting, error)))

/** Level by level: in some file systems (`/proc`) Node's own recursion never ends. */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === "EEXIST" && (await stat(path)).isDirectory()) return
    if (code !== "ENOENT" || dirname(path) === path) throw error
    await makeFolder(dirname(path))
    await mkdir(path, { mode: 0o700 })
  }
}

/** Folders that exist and that this process may write in. */
export const makeFolders = (settings: ReadonlyArray<Omit<Setting, "allowed">>) =>
  Effect.forEach(
    settings,
    (setting) =>
      Effect.tryPromise({
        try: async () => {
          await makeFolder(setting.value)
          await access(setting.value, constants.R_OK | constants.W_OK | constants.X_OK)
        },
        catch: (cause) =>
          refused({ ...setting, allowed: "a folder that this process can make and write in" }, cause)
      }),
    { discard: true }
  )

/** The API's certificate and key as PEM text, read and held to each other. */
export const readTls = Effect.fnUntraced(function* (paths: {
  readonly certificate: string
  readonly key: string
}) {
  const read = <A>(key: string, value: string, allowed: string, parse: (pem: string) => A) =>
    Effect.tryPromise({
      try: async () => {
        const pem = await readFile(value, "utf8")
        return { pem, parsed: parse(pem) }
      },
      catch: (cause) => {
        // What OpenSSL says about a bad file could quote it; a key must not get into a log that way.
        const isFile = cause instanceof Error && "syscall" in cause
        return refused({ key, value, allowed }, isFile ? cause : "it can not be read as one")
      }
    })
  const certificate = yield* read(
    "api.tls_certificate",
    paths.certificate,
    "a PEM file with a certificate",
    (pem) => new X509Certificate(pem)
  )
  const key = yield* read("api.tls_key", paths.key, "a PEM file with a private key", createPrivateKey)
  if (!certificate.parsed.checkPrivateKey(key.parsed)) {
    const setting = { key: "api.tls_key", value: paths.key, allowed: "the key of api.tls_certificate" }
    return yield* refused(setting, `it is not the key of ${paths.certificate}`)
  }
  return { certificate: certificate.pem, key: key.pem }
})

const askTimeoutMs = 10_000

/** That QEMU's programs are there; what they can do is found out while the node goes on. */
export const requireQemu = Effect.forEach(
  ["qemu-system-x86_64", "qemu-img"],
  (program) =>
    runTool(program, ["--version"], askTimeoutMs).pipe(
      Effect.mapError(({ reason }) =>
        refused(
          {
            key: "hypervisor.driver",
            value: "qemu",
            allowed:
              "qemu where its programs are installed (Debian: apt-get install qemu-system-x86 qemu-utils), sim"
          },
          `${program}: ${reason}`
        )
      )
    ),
  { concurrency: 2, discard: true }
)

export const readJoinToken = (value: string) =>
  Effect.tryPromise({
    try: () => readFile(value, "utf8"),
    catch: (cause) =>
      refused(
        { key: "cluster.join_token_file", value, allowed: "a file with a token of novacron ca token" },
        cause
      )
  })
