/** What a simulation saw of the charts, for people: how many states, moves, inputs and facts, of all and of each kind of actor. */

export interface SeenOfKind {
  readonly kind: string
  readonly state: number
  readonly move: number
  readonly input: number
  readonly fact: number
}

type What = Exclude<keyof SeenOfKind, "kind">
const whats: ReadonlyArray<What> = ["state", "move", "input", "fact"]

/** Members of a group have roles, and no kind. */
const memberKind = "member"

/** `vm` of `state vm/running.idle`, of `input vm/absent vm.stop`, and of `fact vm.created`. */
function kindOf(what: string, name: string): string {
  const end = name.indexOf(what === "fact" ? "." : "/")
  return end < 0 ? memberKind : name.slice(0, end)
}

export function seenByKind(coverage: ReadonlyArray<string>): ReadonlyArray<SeenOfKind> {
  const seen = new Map<string, Record<What, number>>()
  for (const one of coverage) {
    const [what = "", name = ""] = one.split(" ")
    const kind = kindOf(what, name)
    const counts = seen.get(kind) ?? { state: 0, move: 0, input: 0, fact: 0 }
    counts[what as What]++
    seen.set(kind, counts)
  }
  return [...seen].map(([kind, counts]) => ({ kind, ...counts }))
}

/** "45 states, 81 moves, 246 inputs, 68 facts"; what no scenario tells of is left out. */
export function coverageText(seen: ReadonlyArray<SeenOfKind>): string {
  const total = (what: What) => seen.reduce((all, one) => all + one[what], 0)
  const told = whats.map((what) => [what, total(what)] as const).filter(([, count]) => count > 0)
  return told.map(([what, count]) => `${count} ${what}${count === 1 ? "" : "s"}`).join(", ")
}
