/** Asking a running node for dry runs, with a look at all that it has before and after, and then for the real thing. */
import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { join } from "node:path"
import { Completions } from "effect/cli"
import type { Command } from "effect/cli"
import { makeCli, runCli } from "../../src/cli/main.ts"
import { journalFile } from "../../src/cli/offline.ts"
import type { LabNode } from "../../src/cli/lab-nodes.ts"
import { Api } from "../../src/live/api/api.ts"
import { footprint, rowsIn, settled } from "./footprint.ts"
import type { Footprint, Watched } from "./footprint.ts"
import type { Asked } from "./dry-run-cases.ts"

interface Endpoint {
  readonly id: string
  readonly method: string
  readonly path: string
}

/** Every endpoint of the API's definition that is not only read. */
export const changingEndpoints: ReadonlyArray<Endpoint> = Object.entries(Api.groups).flatMap(
  ([group, { endpoints }]) =>
    Object.values(endpoints as Record<string, { method: string; path: string; identifier: string }>)
      .filter(({ method }) => method !== "GET")
      .map(({ method, path, identifier }) => ({ id: `${group}.${identifier}`, method, path }))
)

export interface Leaf {
  readonly words: string
  readonly hasDryRun: boolean
}

/** Every command of the command line's tree, by its words. */
export const cliLeaves = (): ReadonlyArray<Leaf> => {
  type Descriptor = Completions.CommandDescriptor
  const walk = (command: Descriptor, path: ReadonlyArray<string>): ReadonlyArray<Leaf> =>
    command.subcommands.length > 0
      ? command.subcommands.flatMap((one) => walk(one, [...path, one.name]))
      : [{ words: path.join(" "), hasDryRun: command.flags.some(({ name }) => name === "dry-run") }]
  return walk(Completions.fromCommand(makeCli() as Command.Command.Any), [])
}

export interface Answer {
  readonly status: number
  readonly body: any
}

export interface Said {
  readonly code: number
  readonly out: string
  readonly err: string
}

export class DryRuns {
  readonly watched: Watched
  readonly #node: LabNode
  readonly #token: string
  #before: Footprint | null = null

  constructor(node: LabNode, token: string, watched: Pick<Watched, "folder" | "pids" | "living">) {
    this.#node = node
    this.#token = token
    const apiPort = Number(new URL(node.url as string).port)
    this.watched = { ...watched, journal: join(node.dataDir, journalFile), apiPort }
  }

  async call(method: string, asked: Asked, key: string): Promise<Answer> {
    const answer = await fetch(`${this.#node.url}${asked.path}`, {
      method,
      headers: {
        authorization: `Bearer ${this.#token}`,
        "content-type": "application/json",
        "idempotency-key": key
      },
      ...(asked.body === undefined ? {} : { body: JSON.stringify(asked.body) })
    })
    return { status: answer.status, body: await answer.json() }
  }

  get(path: string): Promise<Answer> {
    return this.call("GET", { path }, randomUUID())
  }

  async cli(argv: ReadonlyArray<string>): Promise<Said> {
    const said = { out: "", err: "" }
    const code = await runCli(
      argv,
      {},
      {
        out: (text) => void (said.out += text),
        err: (text) => void (said.err += text),
        isOutTerminal: false,
        isErrTerminal: false,
        ask: null,
        environment: {
          NOVACRON_URL: this.#node.url as string,
          NOVACRON_TOKEN: this.#token,
          HOME: "/nonexistent"
        }
      }
    )
    return { code, ...said }
  }

  /** Do it, and nothing of the node may have changed. */
  async leaves<A>(what: string, work: () => Promise<A>): Promise<A> {
    const before = (this.#before ??= await settled(this.watched))
    const result = await work()
    assert.deepEqual(footprint(this.watched), before, `${what} changed something`)
    return result
  }

  /** Also what a dry run would have set going for later did not come. */
  async came(): Promise<void> {
    const before = this.#before
    this.#before = null
    if (before !== null) assert.deepEqual(await settled(this.watched), before, "something came later")
  }

  preview(method: string, asked: Asked, key: string): Promise<Answer> {
    const dry = { ...asked, path: `${asked.path}${asked.path.includes("?") ? "&" : "?"}dryRun=true` }
    const what = `${method} ${dry.path} ${JSON.stringify(asked.body)}`
    return this.leaves(what, () => this.call(method, dry, key))
  }

  /** The dry run, then the real command under the same key: it is answered, and records, as was said. */
  async compare(method: string, asked: Asked, key: string): Promise<Answer> {
    const dry = await this.preview(method, asked, key)
    await this.came()
    const real = await this.call(method, asked, key)
    const what = `${method} ${asked.path} ${JSON.stringify(asked.body)}`
    if (dry.status !== 200) {
      assert.deepEqual(real, dry, `${what}: refused otherwise than was said`)
      return dry
    }
    assert.ok(real.status === 200 || real.status === 202, `${what}: ${JSON.stringify(real.body)}`)
    assert.equal(real.body.stream, dry.body.stream)
    const recorded = this.#recordedBy(key)
    if (dry.body.wouldRecord.length === 0) {
      assert.deepEqual(dry.body.wouldAsk, [], `${what}: nothing recorded, but something asked`)
      return dry
    }
    const shown = recorded.map(({ type, data }) => ({ type: type.slice("novacron.".length), ...data }))
    assert.deepEqual(shown, dry.body.wouldRecord, `${what}: other facts than were said`)
    const last = recorded.at(-1)?.position
    const then = await this.get(`/v1/streams/${dry.body.stream}/facts?at=${last}`)
    assert.equal(then.body.state, dry.body.stateAfter, `${what}: another state than was said`)
    const ended = await this.get(`/v1/operations/${key}?wait=60s`)
    assert.notEqual(ended.body.state, "running", `${what} has not ended`)
    await this.#wentWhere(dry.body, ended.body.state)
    return dry
  }

  #recordedBy(key: string): ReadonlyArray<{ type: string; position: number; data: object }> {
    const query = "select type, position, data from facts where causation = ? order by position"
    return rowsIn(this.watched.journal, query, key).map(({ type, position, data }) => ({
      type: String(type),
      position: Number(position),
      data: JSON.parse(String(data)) as object
    }))
  }

  /** The place that was foreseen is the place it got; what was in a migration's way made it fail, and nothing else did. */
  async #wentWhere(dry: any, state: string): Promise<void> {
    const [kind, name] = String(dry.stream).split("/")
    if (kind === "migration") {
      assert.equal(state, dry.blockers.length === 0 ? "succeeded" : "failed", JSON.stringify(dry))
      const row = (await this.get(`/v1/migrations/${name}`)).body
      if (dry.blockers.length === 0) assert.equal(row.to, dry.placement.chosen)
    } else if (dry.placement !== null && state === "succeeded") {
      const row = (await this.get(`/v1/vms/${name}`)).body
      assert.equal(row.host, dry.placement.chosen)
    }
  }
}
