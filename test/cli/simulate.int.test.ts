/** What `novacron simulate` says of each scenario: to people, and as JSON. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { abouts } from "../../simulations/abouts.ts"
import { scenarios } from "../../simulations/scenarios.ts"
import { saidBy } from "./said.ts"

interface Summary {
  readonly faults: Readonly<Record<string, number>>
  readonly coverage: ReadonlyArray<string>
}

/** What is surely seen of it in three seeds: a fault, and what its actors are and become. */
const seen = {
  raft: ["crash", "state leader", "move candidate leader", "input leader appended"],
  swim: ["crashes", "state member", "move alone member", "input member ping"],
  fleet: ["kernelCrashes", "state vm/running.idle", "move host/unknown host/up", "fact vm.created"],
  fencing: ["leasesLate", "state host/lost", "move host/up host/lost", "fact host.lost"],
  cluster: ["crash", "state leader", "state vm/running.idle", "move host/unknown host/up", "fact vm.created"],
  swarm: ["crash", "state leader", "move candidate leader", "input leader appended"]
} as const

for (const [scenario, [fault, ...wanted]] of Object.entries(seen))
  test(`${scenario} tells which faults there were, and what was seen of its charts`, async () => {
    const seeds = ["--seed", "7", "--seeds", scenario === "swarm" ? "10" : "3", "--workers", "1"]
    const json = await saidBy("simulate", scenario, ...seeds, "--json")
    assert.equal(json.code, 0, json.err)
    const { faults, coverage } = JSON.parse(json.out) as Summary
    assert.ok((faults[fault] ?? 0) > 0, JSON.stringify(faults))
    assert.deepEqual(
      wanted.filter((one) => !coverage.includes(one)),
      []
    )
    const { out } = await saidBy("simulate", scenario, ...seeds)
    assert.match(out, new RegExp(`^fault +how often\\n(.+\\n)*${fault} +${faults[fault]}$`, "m"))
    assert.match(out, /^seen of the charts: \d+ states, \d+ moves, \d+ inputs(, \d+ facts?)?$/m)
    assert.match(out, /^every promise was kept$/m)
    if (coverage.some((one) => one.startsWith("fact ")))
      assert.match(out, /^actor +states +moves +inputs +facts\n(.+\n)*vm +\d+ +\d+ +\d+ +\d+$/m)
  })

test("every scenario has a sentence, and the help tells of each", async () => {
  assert.deepEqual(scenarios.map(({ name }) => name).sort(), Object.keys(abouts).sort())
  const { out } = await saidBy("simulate", "--help")
  for (const name of Object.keys(abouts)) assert.ok(out.includes(`${name}: `), name)
})

test("a scenario that can't be made smaller says so at once, and which ones can", async () => {
  const { code, err } = await saidBy("simulate", "fleet", "--shrink")
  assert.equal(code, 2)
  assert.match(err, /--shrink: fleet can't be made smaller[^]*those that can: raft, cluster/)
})

test("the week of a large fleet is as large as is asked for, and tells how much of it was used", async () => {
  const { code, out, err } = await saidBy("simulate", "scale", "--hosts", "100", "--workers", "1")
  assert.equal(code, 0, err)
  for (const fault of ["hostFailures", "rackFailures", "siteFailures"])
    assert.match(out, new RegExp(`^${fault} +[1-9]\\d*$`, "m"))
  assert.match(out, /^machines +1000 +1000$/m)
  assert.match(out, /^memory promised of these, % +\d\d\.\d +\d\d\.\d$/m)
  for (const figure of ["decisions a second", "memory of the process, MiB"])
    assert.match(out, new RegExp(`^${figure} +[1-9]\\d* +[1-9]\\d*$`, "m"))
  assert.match(out, /^migration +[1-9]\d* +[1-9]\d* +[1-9]\d* +[1-9]\d*$/m)
})

test("sizes that are not for a scenario are refused", async () => {
  const other = await saidBy("simulate", "raft", "--hosts", "100")
  assert.equal(other.code, 2)
  assert.match(other.err, /--hosts is for the scenario scale/)
  const small = await saidBy("simulate", "scale", "--hosts", "5")
  assert.equal(small.code, 2)
  assert.match(small.err, /--hosts is 5: allowed is from 100 to 10000/)
})
