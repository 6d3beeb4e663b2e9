import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { bench } from "./main.ts"

const main = fileURLToPath(new URL("./main.ts", import.meta.url))

test("the benches run, and the same work gives the same results", async () => {
  const parts = ["store", "kernel", "http", "actors", "start-up"] as const
  const first = await bench("smoke", parts)
  const second = await bench("smoke", ["store", "kernel", "actors"])
  for (const figure of first) assert.ok(figure.value > 0, figure.name)
  for (const { name, result } of second)
    assert.deepEqual(
      first.find((figure) => figure.name === name),
      { ...first.find((figure) => figure.name === name), result }
    )
  assert.ok(second.filter(({ result }) => result !== null).length >= 5)
})

for (const [args, said] of [
  [["--size", "huge"], /--size huge: allowed are smoke and normal/],
  [["--only", "kernel,nothing"], /--only nothing: allowed are store, kernel/],
  [["smoke"], /Unexpected argument 'smoke'/],
  [["--fast"], /Unknown option '--fast'/]
] as const) {
  test(`bench ${args.join(" ")} is refused before anything runs`, async () => {
    const { code, text } = await new Promise<{ code: unknown; text: string }>((resolve) => {
      execFile(process.execPath, [main, ...args], (error, _stdout, stderr) =>
        resolve({ code: error?.code, text: stderr })
      )
    })
    assert.equal(code, 2)
    assert.match(text, said)
  })
}
