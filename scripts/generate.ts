/**
 * Writes what is published from the code: schemas/ (configuration, API, events) and docs/reference/. A test holds
 * the committed files to it, so that a change of the contract is seen in review.
 *
 *   node scripts/generate.ts
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { Schema } from "effect"
import { OpenApi } from "effect/http-api"
import { AuthorityCommand, AuthorityFact } from "../src/events/authority.ts"
import { ClusterCommand, ClusterFact } from "../src/events/cluster.ts"
import { Recorded } from "../src/events/envelope.ts"
import { HostCommand, HostFact } from "../src/events/host.ts"
import { KeyringCommand, KeyringFact } from "../src/events/keyring.ts"
import { RebalancerCommand, RebalancerFact, RebalancerReport } from "../src/events/rebalancer.ts"
import { MigrationCommand, MigrationFact } from "../src/events/migration.ts"
import { NodeCommand, NodeFact } from "../src/events/node.ts"
import { PeerCommand, PeerFact } from "../src/events/peer.ts"
import { PlacementCommand, PlacementFact, PlacementReport } from "../src/events/placement.ts"
import { Report, Request } from "../src/events/requests.ts"
import { VmCommand, VmFact } from "../src/events/vm.ts"
import { cliReference } from "../src/cli/reference.ts"
import { Api } from "../src/live/api/api.ts"
import { configJsonSchema, configReference } from "../src/live/config/render.ts"

const published = {
  Recorded,
  VmFact,
  VmCommand,
  HostFact,
  HostCommand,
  PlacementFact,
  PlacementCommand,
  PlacementReport,
  MigrationFact,
  MigrationCommand,
  NodeFact,
  NodeCommand,
  PeerFact,
  PeerCommand,
  KeyringFact,
  KeyringCommand,
  ClusterFact,
  ClusterCommand,
  AuthorityFact,
  AuthorityCommand,
  RebalancerFact,
  RebalancerCommand,
  RebalancerReport,
  Request,
  Report
} as const

/** Facts as the journal keeps them (`Recorded`), the facts' own data, the commands, the requests and the reports. */
function eventsJsonSchema(): Record<string, unknown> {
  const definitions: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(published)) {
    const document = Schema.toJsonSchemaDocument(schema as Schema.Constraint)
    definitions[name] = document.schema
    Object.assign(definitions, document.definitions)
  }
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    $id: "urn:novacron:schema:events",
    title: "NovaCron facts, commands, requests and reports",
    description: "A line of the journal is a Recorded; its type is the fact's with the prefix novacron.",
    $ref: "#/$defs/Recorded",
    $defs: definitions
  }
}

const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`

/** Every generated file: its path from the repository's root, and its text. */
export const generated = (): ReadonlyMap<string, string> =>
  new Map([
    ["schemas/config.schema.json", json(configJsonSchema())],
    ["schemas/openapi.json", json(OpenApi.fromApi(Api))],
    ["schemas/events.schema.json", json(eventsJsonSchema())],
    ["docs/reference/configuration.md", configReference()],
    ["docs/reference/cli.md", cliReference()]
  ])

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = dirname(dirname(fileURLToPath(import.meta.url)))
  for (const [path, text] of generated()) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
}
