/** A node:test reporter: one JSON line per finished test, for scripts/test.mjs to count and to list. */
export default async function* reporter(source) {
  for await (const { type, data } of source) {
    if (type !== "test:pass" && type !== "test:fail") continue
    const { name, skip, todo, nesting, details } = data
    const isSuite = details?.type === "suite"
    yield `${JSON.stringify({ name, nesting, isSuite, failed: type === "test:fail", skip, todo })}\n`
  }
}
