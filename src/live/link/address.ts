/** Where an agent is: `host:port`, `[v6]:port`, and with the name that its certificate must have, `node@host:port`. */
export interface AgentAddress {
  readonly node: string | null
  readonly host: string
  readonly port: number
}

/** Of a text with commas between, as `cluster.join` has it. */
export const addressesIn = (text: string): ReadonlyArray<string> => (text === "" ? [] : text.split(","))

/** The parts of an address; null when the text is none. */
export function parseAddress(text: string): AgentAddress | null {
  const parts = /^(?:([a-z0-9-]{1,63})@)?(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]{1,253})):(\d{1,5})$/.exec(
    text
  )
  const host = parts?.[2] ?? parts?.[3]
  const port = Number(parts?.[4])
  if (!parts || host === undefined || port < 1 || port > 65_535) return null
  return { node: parts[1] ?? null, host, port }
}
