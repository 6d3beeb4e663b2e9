/** Which version of the protocol and which features two nodes use on their link. */
import type { Hello, Refusal } from "../../events/link.ts"

export interface Agreement {
  readonly version: number
  readonly features: ReadonlyArray<string>
  /** The longest frame and the most requests that the other side takes. */
  readonly frameBytesMax: number
  readonly requestsMax: number
}

/** `theirs` must name the node that its certificate names. Both sides come to the same answer. */
export function negotiate(ours: Hello, theirs: Hello, certifiedNode: string): Agreement | Refusal {
  if (theirs.node !== certifiedNode) {
    return { code: "identity", reason: `says it is ${theirs.node}; its certificate says ${certifiedNode}` }
  }
  const version = Math.min(ours.versionMax, theirs.versionMax)
  if (version < ours.versionMin || version < theirs.versionMin) {
    const reason =
      `no common version: ${ours.node} speaks ${ours.versionMin} to ${ours.versionMax}, ` +
      `${theirs.node} speaks ${theirs.versionMin} to ${theirs.versionMax}`
    return { code: "version", reason }
  }
  const features = ours.features.filter((feature) => theirs.features.includes(feature)).toSorted()
  return { version, features, frameBytesMax: theirs.frameBytesMax, requestsMax: theirs.requestsMax }
}

/** Of two links between the same nodes, dialled from either end, both keep the one that the lower name dialled. */
export const keepsExisting = (existingDialler: string, newDialler: string) => existingDialler < newDialler
