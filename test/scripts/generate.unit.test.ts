import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { test } from "node:test"
import { generated } from "../../scripts/generate.ts"

for (const [path, text] of generated()) {
  test(`${path} is what the code says; npm run generate writes it`, () => {
    assert.equal(readFileSync(new URL(`../../${path}`, import.meta.url), "utf8"), text)
  })
}

test("the OpenAPI document names every route, and asks for a token everywhere but at /health", () => {
  const document = JSON.parse(generated().get("schemas/openapi.json") ?? "{}")
  assert.equal(document.openapi, "3.1.0")
  assert.deepEqual(document.security, [{ bearer: [] }])
  assert.deepEqual(document.paths["/health"].get.security, [])
  for (const path of ["/v1/vms/{name}/migrate", "/v1/events", "/v1/operations/{id}", "/v1/audit/verify"]) {
    assert.ok(document.paths[path], path)
  }
})
