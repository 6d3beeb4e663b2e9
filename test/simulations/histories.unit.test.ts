/** Histories as porcupine and Knossos read them: one operation under way on a process, in the order of time. */
import assert from "node:assert/strict"
import { test } from "node:test"
import type { Call } from "../../simulations/checkers/linearizability.ts"
import { knossos, porcupine } from "../../simulations/histories.ts"

const never = Number.POSITIVE_INFINITY
const calls: ReadonlyArray<Call> = [
  { operation: { op: "write", key: "k", value: "a" }, calledMs: 1, answeredMs: 4, result: null },
  { operation: { op: "read", key: "k" }, calledMs: 2, answeredMs: 3, result: null },
  { operation: { op: "write", key: "k", value: "b" }, calledMs: 5, answeredMs: never, result: undefined },
  { operation: { op: "read", key: "k" }, calledMs: 6, answeredMs: never, result: undefined },
  {
    operation: { op: "swap", key: "k", expected: "b", value: "c" },
    calledMs: 6,
    answeredMs: 8,
    result: true
  },
  {
    operation: { op: "swap", key: "k", expected: null, value: "d" },
    calledMs: 8,
    answeredMs: 9,
    result: false
  },
  { operation: { op: "read", key: "k" }, calledMs: 10, answeredMs: 11.5, result: "c" }
]

test("for porcupine", () => {
  assert.equal(
    porcupine(calls),
    `{:process 0, :type :invoke, :f :put, :key "k", :value "a"}
{:process 1, :type :invoke, :f :get, :key "k", :value nil}
{:process 1, :type :ok, :f :get, :key "k", :value ""}
{:process 0, :type :ok, :f :put, :key "k", :value "a"}
{:process 0, :type :invoke, :f :put, :key "k", :value "b"}
{:process 1, :type :invoke, :f :cas, :key "k", :value ["b" "c"]}
{:process 2, :type :invoke, :f :cas, :key "k", :value ["" "d"]}
{:process 1, :type :ok, :f :cas, :key "k", :value ["b" "c"]}
{:process 2, :type :fail, :f :cas, :key "k", :value ["" "d"]}
{:process 1, :type :invoke, :f :get, :key "k", :value nil}
{:process 1, :type :ok, :f :get, :key "k", :value "c"}
`
  )
})

test("for Knossos", () => {
  assert.equal(
    knossos(calls),
    `{:index 0, :process 0, :type :invoke, :f :write, :value ["k" ""], :time 0}
{:index 1, :process 0, :type :ok, :f :write, :value ["k" ""], :time 0}
{:index 2, :process 0, :type :invoke, :f :write, :value ["k" "a"], :time 1000000}
{:index 3, :process 1, :type :invoke, :f :read, :value ["k" nil], :time 2000000}
{:index 4, :process 1, :type :ok, :f :read, :value ["k" ""], :time 3000000}
{:index 5, :process 0, :type :ok, :f :write, :value ["k" "a"], :time 4000000}
{:index 6, :process 0, :type :invoke, :f :write, :value ["k" "b"], :time 5000000}
{:index 7, :process 1, :type :invoke, :f :cas, :value ["k" ["b" "c"]], :time 6000000}
{:index 8, :process 2, :type :invoke, :f :cas, :value ["k" ["" "d"]], :time 8000000}
{:index 9, :process 1, :type :ok, :f :cas, :value ["k" ["b" "c"]], :time 8000000}
{:index 10, :process 2, :type :fail, :f :cas, :value ["k" ["" "d"]], :time 9000000}
{:index 11, :process 1, :type :invoke, :f :read, :value ["k" nil], :time 10000000}
{:index 12, :process 1, :type :ok, :f :read, :value ["k" "c"], :time 11500000}
{:index 13, :process 0, :type :info, :f :write, :value ["k" "b"], :time 11500000}
`
  )
})
