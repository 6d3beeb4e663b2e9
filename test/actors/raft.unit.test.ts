/** The log and the majorities of Raft beside the plainest thing that does the same. */
import assert from "node:assert/strict"
import { test } from "node:test"
import * as fc from "fast-check"
import { Log } from "../../src/actors/raft/log.ts"
import {
  changeTo,
  everyone,
  hasQuorum,
  isLost,
  noMembers,
  quorumValue,
  settled
} from "../../src/actors/raft/quorum.ts"
import type { Entry, Members } from "../../src/events/raft.ts"

const seed = 20_261_121
const entry = (index: number, term: number): Entry => ({
  index,
  term,
  data: `d${index}.${term}`,
  members: null
})

/** A log as an array with holes where it was compacted. */
interface Plain {
  readonly base: number
  readonly baseTerm: number
  readonly entries: ReadonlyArray<Entry>
}

const same = (log: Log, plain: Plain) => {
  assert.equal(log.base, plain.base)
  assert.equal(log.last, plain.base + plain.entries.length)
  assert.deepEqual(log.slice(log.base + 1), plain.entries)
  assert.equal(log.termAt(log.base), plain.baseTerm)
  assert.equal(log.termAt(log.last + 1), null)
  for (const one of plain.entries) assert.equal(log.at(one.index), one)
}

test("logs that grow from one another stay what they were", () => {
  const step = fc.record({
    from: fc.nat(),
    at: fc.nat(),
    count: fc.integer({ min: 1, max: 4 }),
    compact: fc.boolean()
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      // Every one that there ever was: a later one must not change an earlier one.
      const all: Array<{ readonly log: Log; readonly plain: Plain }> = [
        { log: Log.after(0, 0), plain: { base: 0, baseTerm: 0, entries: [] } }
      ]
      for (const [term, { from, at, count, compact }] of steps.entries()) {
        const { log, plain } = all[from % all.length]!
        const place = at % (plain.entries.length + 1)
        if (compact) {
          const kept = plain.entries.slice(place)
          const baseTerm = place === 0 ? plain.baseTerm : plain.entries[place - 1]!.term
          all.push({
            log: log.compact(plain.base + place),
            plain: { base: plain.base + place, baseTerm, entries: kept }
          })
        } else {
          const added = Array.from({ length: count }, (_, n) => entry(plain.base + place + 1 + n, term + 1))
          const longer = { ...plain, entries: [...plain.entries.slice(0, place), ...added] }
          all.push({ log: log.append(added), plain: longer })
          // What a step has appended its fact appends again; another may have gone on from the first.
          all.push({ log: log.append(added), plain: longer })
        }
        for (const one of all) same(one.log, one.plain)
      }
    }),
    { seed, numRuns: 100 }
  )
})

test("a log that does not follow is a bug; a part has at least one entry and then as many as fit", () => {
  const log = Log.after(3, 2).append([entry(4, 2), entry(5, 3), entry(6, 3)])
  assert.throws(() => log.append([entry(8, 3)]), /entry 8 does not follow a log of 3 to 6/)
  assert.throws(() => log.append([entry(3, 3)]), /entry 3 does not follow/)
  assert.throws(() => log.compact(7), /7 is not in a log of 3 to 6/)
  assert.deepEqual(log.slice(5, 6, 1), [entry(5, 3)])
  assert.deepEqual(log.slice(7), [])
  assert.deepEqual(log.agreeing(6, 2), { index: 4, term: 2 })
  assert.deepEqual(log.agreeing(9, 9), { index: 6, term: 3 })
  assert.equal(log.isUpToDate(5, 3), false)
  assert.equal(log.isUpToDate(1, 4), true)
})

const ids = ["a", "b", "c", "d", "e", "f"]
const some = fc.subarray(ids, { minLength: 1 })
const members = fc
  .record({ voters: some, outgoing: fc.oneof(fc.constant([]), some) })
  .map(({ voters, outgoing }): Members => ({ ...noMembers, voters, outgoing }))

test("majorities, also joint ones, beside counting by hand", () => {
  const most = (voters: ReadonlyArray<string>, yes: ReadonlyArray<string>) =>
    voters.length === 0 || voters.filter((id) => yes.includes(id)).length * 2 > voters.length
  fc.assert(
    fc.property(members, fc.subarray(ids), (group, yes) => {
      const { voters, outgoing } = group
      const expected = most(voters, yes) && most(outgoing, yes)
      assert.equal(
        hasQuorum(group, (id) => yes.includes(id)),
        expected
      )
      // Lost is when not even all the others together would do.
      const others = ids.filter((id) => !yes.includes(id))
      assert.equal(
        isLost(group, (id) => yes.includes(id)),
        !(most(voters, others) && most(outgoing, others))
      )
    }),
    { seed, numRuns: 2000 }
  )
})

test("the value that a quorum has reached is the highest that one agrees to", () => {
  fc.assert(
    fc.property(members, fc.array(fc.nat(9), { minLength: 6, maxLength: 6 }), (group, values) => {
      const valueOf = (id: string) => values[ids.indexOf(id)] ?? 0
      const reached = quorumValue(group, valueOf)
      assert.ok(hasQuorum(group, (id) => valueOf(id) >= reached))
      assert.ok(!hasQuorum(group, (id) => valueOf(id) > reached))
    }),
    { seed, numRuns: 2000 }
  )
})

test("any quorum of a change meets any quorum of before and of after", () => {
  fc.assert(
    fc.property(some, some, fc.subarray(ids), fc.subarray(ids), (before, after, one, other) => {
      const from = { ...noMembers, voters: before }
      const joint = changeTo(from, after, [])
      const to = settled(joint)
      assert.deepEqual([...everyone(to)].sort(), [...after].sort())
      const meets = (a: Members, b: Members) => {
        if (!hasQuorum(a, (id) => one.includes(id)) || !hasQuorum(b, (id) => other.includes(id))) return
        assert.ok(one.some((id) => other.includes(id)))
      }
      meets(from, joint)
      meets(joint, to)
    }),
    { seed, numRuns: 3000 }
  )
})

test("a voter that becomes a learner votes until the change is over", () => {
  const joint = changeTo({ ...noMembers, voters: ["a", "b"], learners: ["c"] }, ["a", "c"], ["b"])
  assert.deepEqual(joint, { voters: ["a", "c"], outgoing: ["a", "b"], learners: [], learnersNext: ["b"] })
  assert.deepEqual(settled(joint), { voters: ["a", "c"], outgoing: [], learners: ["b"], learnersNext: [] })
})
