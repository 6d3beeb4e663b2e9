/**
 * The hosts that a placement is told of. Few hosts are all told. Of many, hosts are looked at in an order drawn for the
 * decision until enough can take the machine, as Borg and Kubernetes do; who was looked at and is out is counted by the
 * filter that leaves it out. So a decision costs about the same however many hosts there are, decisions made at the same
 * time choose among different hosts, and the best of so many drawn is, with packing, nearly the best of all.
 */
import { firstOut, needsOf } from "../events/feasibility.ts"
import type { HostView, Others, PlacementQuestion } from "../events/placement.ts"
import { hostViewOf, hostViewsOf } from "./inventory.ts"
import type { HostRow, Inventory } from "./inventory.ts"
import type { Table } from "./table.ts"

/** So many hosts are all named, with every reason. */
export const named_max = 100
/** Of more, so many that can take the machine are scored. */
export const scored_max = 32
const examples_max = 3

export interface Asked {
  readonly question?: PlacementQuestion
  readonly draw?: string
}

export interface Told {
  readonly hosts: ReadonlyArray<HostView>
  readonly others?: Others
}

/** Hosts are never taken out of the table: as long as there are as many, they are the same. */
const namesByTable = new WeakMap<Table<HostRow>, ReadonlyArray<string>>()

function namesOf(hosts: Table<HostRow>): ReadonlyArray<string> {
  const known = namesByTable.get(hosts)
  if (known?.length === hosts.size) return known
  const names = [...hosts.values()].map(({ name }) => name).sort()
  namesByTable.set(hosts, names)
  return names
}

/** FNV-1a, 32 bits. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (let place = 0; place < text.length; place++)
    hash = Math.imul(hash ^ text.charCodeAt(place), 0x01000193) >>> 0
  return hash
}

/** Primes: with a stride that does not divide their number every host comes once, and neighbours are far apart. */
const strides = [7919, 6997, 5003]

/** Every index below `count` once, in the order that the draw says. */
export function* drawnOrder(draw: string, count: number): Generator<number> {
  const stride = strides.find((one) => count % one !== 0) ?? 1
  const begin = hashOf(draw) % count
  for (let step = 0; step < count; step++) yield (begin + step * stride) % count
}

export function hostsFor(inventory: Inventory, { question, draw = "" }: Asked): Told {
  const names = namesOf(inventory.hosts)
  if (question === undefined || names.length <= named_max) return { hosts: hostViewsOf(inventory) }
  return new Search(inventory, question).run(names, draw)
}

class Search {
  readonly #inventory: Inventory
  readonly #question: PlacementQuestion
  readonly #needs
  readonly #hosts: Array<HostView> = []
  readonly #named = new Set<string>()
  readonly #out = new Map<string, { hosts: number; examples: Array<{ host: string; reason: string }> }>()
  #looked = 0
  #fit = 0

  constructor(inventory: Inventory, question: PlacementQuestion) {
    this.#inventory = inventory
    this.#question = question
    this.#needs = needsOf(question.spec)
  }

  run(names: ReadonlyArray<string>, draw: string): Told {
    const { pinned } = this.#question
    for (const name of this.#wanted()) this.#name(name)
    if (pinned === null)
      for (const index of drawnOrder(draw, names.length)) {
        if (this.#fit >= scored_max) break
        this.#look(names[index] as string)
      }
    else {
      // Nobody else is asked for, so nobody else has to be looked at.
      const others = names.length - this.#hosts.length
      this.#looked += others
      if (others > 0) this.#out.set("pinned", { hosts: others, examples: [] })
    }
    const out = [...this.#out].map(([filter, group]) => ({ filter, ...group }))
    return { hosts: this.#hosts, others: { hosts: names.length, looked: this.#looked, draw, out } }
  }

  /** Named whatever becomes of them: the one that was asked for, or those of the machines to be placed with. */
  #wanted(): ReadonlyArray<string> {
    const { pinned, spec } = this.#question
    if (pinned !== null) return [pinned]
    return spec.affinity.flatMap((vm) => this.#inventory.vms.get(vm)?.host ?? [])
  }

  #name(name: string): void {
    const row = this.#inventory.hosts.get(name)
    if (row === undefined || this.#named.has(name)) return
    const host = hostViewOf(row)
    this.#named.add(name)
    this.#hosts.push(host)
    this.#looked++
    if (firstOut(host, this.#question, this.#needs) === undefined) this.#fit++
  }

  #look(name: string): void {
    const row = this.#inventory.hosts.get(name)
    if (row === undefined || this.#named.has(name)) return
    const host = hostViewOf(row)
    const filter = firstOut(host, this.#question, this.#needs)
    this.#looked++
    if (filter === undefined) {
      this.#fit++
      this.#hosts.push(host)
      return
    }
    let group = this.#out.get(filter.name)
    if (group === undefined) this.#out.set(filter.name, (group = { hosts: 0, examples: [] }))
    group.hosts++
    if (group.examples.length < examples_max) {
      const reason = filter.reason(host, this.#question, this.#needs)
      group.examples.push({ host: host.name, reason })
    }
  }
}
