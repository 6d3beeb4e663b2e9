/** Flags that every command takes, wherever they stand on the line. */
import { Flag, GlobalFlag } from "effect/cli"

interface Described {
  readonly name: string
  readonly value: string
  readonly about: string
}
const known: Array<Described> = []
/** Name, placeholder of its value and meaning of each, for the reference. */
export const describedFlags: ReadonlyArray<Described> = known

const on = (name: string, about: string) => {
  known.push({ name, value: "", about })
  return Flag.Boolean(name).pipe(Flag.withDescription(about), Flag.withoutNegation, Flag.withDefault(false))
}
const text = (name: string, metavar: string, about: string) => {
  known.push({ name, value: metavar, about })
  return Flag.String(name).pipe(Flag.withDescription(about), Flag.withMetavar(metavar), Flag.withDefault(""))
}

export const Json = GlobalFlag.Setting("json")({ flag: on("json", "Print JSON, and errors as JSON too") })
export const Plain = GlobalFlag.Setting("plain")({
  flag: on("plain", "Print one record a line, fields between tabs, no headings")
})
export const NoColor = GlobalFlag.Setting("no-color")({
  flag: on("no-color", "Print without colours; NO_COLOR does the same")
})
export const NoInput = GlobalFlag.Setting("no-input")({
  flag: on("no-input", "Never ask; fail where a question would be asked")
})
export const ConfigFile = GlobalFlag.Setting("config")({
  flag: text(
    "config",
    "FILE",
    "Configuration file; NOVACRON_CONFIG, else $XDG_CONFIG_HOME/novacron/config.yaml"
  )
})
export const Url = GlobalFlag.Setting("url")({
  flag: text(
    "url",
    "URL",
    "Address of the API, http://127.0.0.1:7070 or unix:/path, of several nodes with commas between: whoever is there is asked; NOVACRON_URL, else as configured"
  )
})
export const TokenFile = GlobalFlag.Setting("token-file")({
  flag: text(
    "token-file",
    "FILE",
    "File with the API's token, or one for each address with commas between; NOVACRON_TOKEN_FILE, else as configured"
  )
})
export const Authority = GlobalFlag.Setting("ca")({
  flag: text("ca", "FILE", "PEM file of the authority that signed the API's certificate")
})

export const Stale = GlobalFlag.Setting("stale")({
  flag: on(
    "stale",
    "Read what the node has, which may be old: also where no majority of the cluster is there"
  )
})

export const globalFlags = [
  Json,
  Plain,
  NoColor,
  NoInput,
  ConfigFile,
  Url,
  TokenFile,
  Authority,
  Stale
] as const
