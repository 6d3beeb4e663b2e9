/**
 * Runs the tests: test/**\/*.test.ts, the cheap ones first (unit, int, e2e), each file in a process and process
 * group of its own with a time limit. Ends with what was left out and why, what failed, and one line of counts.
 *
 *   npm test -- [options] [part of a file's path ...]
 *     --unit --int --e2e     only these (tests without a suffix count as unit)
 *     --name <pattern>       only tests whose name matches
 *     --limit <seconds>      for each file, instead of 120 (unit), 300 (int) and 600 (e2e)
 *
 * Exit code 1 when a test failed, a file passed its limit or had no tests, or no test ran; 2 for wrong options.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const node = join(root, "node_modules", "node", "bin", "node")
const reporter = new URL("./reporter.mjs", import.meta.url).href

/** End-to-end tests run alone: they measure, and each may start several machines. */
const costs = [
  { cost: "unit", concurrency: Math.max(2, availableParallelism()), timeoutMs: 120_000 },
  { cost: "int", concurrency: 2, timeoutMs: 300_000 },
  { cost: "e2e", concurrency: 1, timeoutMs: 600_000 }
]
const killAfterMs = 5_000
const outputMaxBytes = 8 * 1024 * 1024

const running = new Set()

function signalGroup(child, signal) {
  try {
    process.kill(-child.pid, signal)
  } catch (error) {
    if (error.code !== "ESRCH") throw error
  }
}

/** Ends the file's whole process group, gently first. */
function end(child) {
  signalGroup(child, "SIGTERM")
  return setTimeout(() => signalGroup(child, "SIGKILL"), killAfterMs)
}

function readEvents(path) {
  if (!existsSync(path)) return []
  const lines = readFileSync(path, "utf8").split("\n")
  return lines.filter((line) => line !== "").map((line) => JSON.parse(line))
}

/** Runs one file and gives its path, exit code, output, test events and whether it passed its limit. */
function runFile(file, { timeoutMs, folder, index, namePattern }) {
  const events = join(folder, `${index}.ndjson`)
  const filter = namePattern === undefined ? [] : [`--test-name-pattern=${namePattern}`]
  const reporters = [
    ...["--test-reporter=spec", "--test-reporter-destination=stdout"],
    ...[`--test-reporter=${reporter}`, `--test-reporter-destination=${events}`]
  ]
  return new Promise((resolve) => {
    const startMs = performance.now()
    const child = spawn(node, ["--enable-source-maps", ...reporters, ...filter, file], {
      cwd: root,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"]
    })
    running.add(child)
    const chunks = []
    let bytes = 0
    let timedOut = false
    let killTimer
    const keep = (chunk) => {
      bytes += chunk.length
      if (bytes <= outputMaxBytes) chunks.push(chunk)
    }
    child.stdout.on("data", keep)
    child.stderr.on("data", keep)
    const timer = setTimeout(() => {
      timedOut = true
      killTimer = end(child)
    }, timeoutMs)
    child.on("error", (error) => keep(Buffer.from(`${error.message}\n`)))
    child.on("exit", () => {
      // A process the test left behind would hold our pipes open, and the port or the file it was using.
      if (child.pid !== undefined) signalGroup(child, "SIGKILL")
    })
    child.on("close", (code, signal) => {
      clearTimeout(timer)
      clearTimeout(killTimer)
      running.delete(child)
      const output =
        Buffer.concat(chunks).toString("utf8") + (bytes > outputMaxBytes ? "\n[output cut]\n" : "")
      const tookMs = performance.now() - startMs
      resolve({ file, code, signal, output, timedOut, timeoutMs, tookMs, events: readEvents(events) })
    })
  })
}

async function runAll(files, options, onDone) {
  const queue = files.map((file, index) => ({ file, index }))
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      onDone(await runFile(next.file, { ...options, index: `${options.cost}-${next.index}` }))
    }
  }
  await Promise.all(Array.from({ length: options.concurrency }, worker))
}

/** Why a file failed beyond its failing tests, or undefined. */
function troubleOf(result, isFiltered) {
  if (result.timedOut) return `not finished after ${result.timeoutMs / 1000} s, ended`
  if (result.signal) return `ended by ${result.signal}`
  if (result.events.length === 0 && result.code === 0) return isFiltered ? undefined : "has no tests"
  if (result.code !== 0 && !result.events.some((event) => event.failed)) return `exit code ${result.code}`
  return undefined
}

function summarize(results, isFiltered) {
  const summary = { passed: 0, failed: 0, leftOut: [], failures: [] }
  for (const result of results) {
    for (const event of result.events) {
      const reason = event.skip ?? event.todo
      if (reason !== undefined && reason !== false) {
        const text = reason === true ? "no reason given" : reason
        summary.leftOut.push(`${result.file}: ${event.name}: ${text}`)
      } else if (event.failed) {
        if (!event.isSuite) summary.failed += 1
        summary.failures.push(`${result.file}: ${event.name}`)
      } else if (!event.isSuite) summary.passed += 1
    }
    const trouble = troubleOf(result, isFiltered)
    if (trouble === undefined) continue
    summary.failed += 1
    summary.failures.push(`${result.file}: ${trouble}`)
  }
  return summary
}

function printSummary({ passed, failed, leftOut, failures }, tookMs) {
  if (leftOut.length > 0) {
    console.log(`\n${"!".repeat(78)}\nLEFT OUT, ${leftOut.length} of the tests did not run:`)
    for (const line of leftOut) console.log(`  ${line}`)
    console.log("!".repeat(78))
  }
  if (failures.length > 0) console.log(`\nFAILED\n${failures.map((line) => `  ${line}`).join("\n")}`)
  if (passed + failed === 0) console.log("\nno tests ran")
  const tail = leftOut.length > 0 ? `, ${leftOut.length} left out` : ""
  console.log(`\n${passed} passed, ${failed} failed${tail} (${(tookMs / 1000).toFixed(1)} s)`)
}

function testFiles() {
  const entries = readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" })
  return entries
    .filter((path) => path.endsWith(".test.ts"))
    .map((path) => `test/${path.replaceAll("\\", "/")}`)
}

const costOf = (file) => /\.(unit|int|e2e)\.test\.ts$/.exec(file)?.[1] ?? "unit"

function printResult(result) {
  const took = `${(result.tookMs / 1000).toFixed(1)} s`
  if (result.code === 0 && !result.timedOut) {
    const count = result.events.filter((event) => !event.isSuite).length
    console.log(`ok    ${result.file} (${count} tests, ${took})`)
  } else {
    console.log(`FAIL  ${result.file} (${took})\n${result.output}`)
  }
}

function readOptions() {
  const options = { unit: "boolean", int: "boolean", e2e: "boolean", name: "string", limit: "string" }
  const typed = Object.fromEntries(Object.entries(options).map(([name, type]) => [name, { type }]))
  try {
    const parsed = parseArgs({ options: typed, allowPositionals: true })
    const { limit } = parsed.values
    if (limit !== undefined && !(Number(limit) > 0))
      throw new Error(`--limit ${limit}: allowed is a number above 0`)
    return parsed
  } catch (error) {
    console.error(error.message)
    process.exit(2)
  }
}

async function main() {
  const { values, positionals } = readOptions()
  const chosen = costs.filter(({ cost }) => values[cost])
  const isFiltered = values.name !== undefined
  const matches = (file) => positionals.length === 0 || positionals.some((part) => file.includes(part))
  const files = testFiles().filter(matches).toSorted()
  const folder = mkdtempSync(join(tmpdir(), "novacron-test-"))
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.on(signal, () => {
      for (const child of running) signalGroup(child, "SIGKILL")
      rmSync(folder, { recursive: true, force: true })
      process.exit(signal === "SIGINT" ? 130 : 143)
    })
  }
  const startMs = performance.now()
  const results = []
  for (const group of chosen.length > 0 ? chosen : costs) {
    const inGroup = files.filter((file) => costOf(file) === group.cost)
    const timeoutMs = values.limit === undefined ? group.timeoutMs : Number(values.limit) * 1000
    await runAll(inGroup, { ...group, timeoutMs, folder, namePattern: values.name }, (result) => {
      printResult(result)
      results.push(result)
    })
  }
  rmSync(folder, { recursive: true, force: true })
  const summary = summarize(results, isFiltered)
  printSummary(summary, performance.now() - startMs)
  process.exitCode = summary.failed > 0 || summary.passed === 0 ? 1 : 0
}

await main()
