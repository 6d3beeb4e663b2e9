/** The names under which faults are counted: those of one kind that do different things are counted apart. */
export type Counted<Fault extends { readonly kind: string }> = Fault extends {
  readonly kind: "damage"
  readonly how: infer How extends string
}
  ? `damage ${How}`
  : Fault extends { readonly kind: "error"; readonly operation: infer Operation extends string }
    ? `error ${Operation}`
    : Fault["kind"]

export function countedAs<Fault extends { readonly kind: string }>(fault: Fault): Counted<Fault> {
  const { kind, how, operation } = fault as { readonly kind: string; how?: string; operation?: string }
  const name = kind === "damage" ? `damage ${how}` : kind === "error" ? `error ${operation}` : kind
  return name as Counted<Fault>
}
