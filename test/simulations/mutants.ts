/**
 * Planted faults: each is a mistake that a real implementation, paper or textbook account of Raft has made, as an edit of
 * the production source. An edit whose text is no longer there, or there twice, fails its test.
 */
export interface Mutant {
  readonly name: string
  /** What goes wrong, and where it was seen. */
  readonly story: string
  /** One that found it, to be tried first; a later one than a test tries makes it a rare one. Null where none is known. */
  readonly seed: number | null
  readonly edits: ReadonlyArray<{ readonly file: string; readonly find: string; readonly put: string }>
}

const folder = "src/actors/raft/"
const edit = (file: string, find: string, put: string) => ({ file: `${folder}${file}`, find, put })

export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "commit-by-counting",
    seed: 32,
    story: "an entry of an earlier term is committed by counting its copies (Raft paper, figure 8)",
    edits: [
      edit(
        "leading.ts",
        "reached <= now.commit || step.log.termAt(reached) !== step.term",
        "reached <= now.commit"
      )
    ]
  },
  {
    name: "vote-forgotten",
    seed: 1,
    story: "term and vote are not on the disk, so a restart votes again in the same term",
    edits: [
      { file: "src/events/raft.ts", find: `  "raft.noted",\n`, put: `  "raft.noted",\n  "raft.voted",\n` }
    ]
  },
  {
    name: "vote-cleared-in-term",
    seed: 9,
    story: "a message of the same term clears the vote",
    edits: [
      edit(
        "decide.ts",
        "if (message.term > step.term) {",
        'if (message.term > step.term || message.type === "requestVote") {'
      )
    ]
  },
  {
    name: "vote-for-two",
    seed: 10,
    story: "whoever asks gets the vote, also in a term in which it was given away",
    edits: [
      edit(
        "elections.ts",
        "(step.kept.vote === null && step.now.leader === null && !isBound(step, message))",
        "true"
      )
    ]
  },
  {
    name: "acknowledged-before-fsync",
    seed: 1,
    story: "a follower answers before the entries are on its disk (a setting of several systems)",
    edits: [
      edit("following.ts", "    hintTerm: 0,\n    round\n  })", "    hintTerm: 0,\n    round\n  }, true)")
    ]
  },
  {
    name: "own-entries-counted-at-once",
    seed: 3,
    story: "a leader counts its own copy before it is on its disk",
    edits: [
      edit("leading.ts", "  return entries\n}", "  step.now.stored = step.log.last\n  return entries\n}")
    ]
  },
  {
    name: "matching-suffix-cut",
    seed: 4,
    story:
      "an old append cuts off what a later one brought (etcd-io/raft, issues on truncation; Raft TLA+ notes)",
    edits: [
      edit(
        "following.ts",
        "entries.findIndex(({ index, term }) => log.termAt(index) !== term)",
        "entries.length > 0 ? 0 : -1"
      )
    ]
  },
  {
    name: "previous-term-unchecked",
    seed: 17,
    story: "the entry before is only looked for by its index",
    edits: [
      edit("following.ts", "log.termAt(previousIndex) !== previousTerm", "log.termAt(previousIndex) === null")
    ]
  },
  {
    name: "stale-vote-counted",
    seed: 3,
    story: "a vote of an earlier term counts for this one",
    edits: [
      edit(
        "decide.ts",
        "else if (message.term < step.term) return",
        'else if (message.term < step.term && message.type !== "vote") return'
      ),
      edit(
        "elections.ts",
        'step.role === "candidate" && message.term === step.term',
        'step.role === "candidate"'
      )
    ]
  },
  {
    name: "vote-without-log-check",
    seed: 1,
    story: "votes go to candidates that lack committed entries",
    edits: [edit("elections.ts", "const isGranted = isFree && isNew", "const isGranted = isFree")]
  },
  {
    name: "longer-is-newer",
    seed: 3,
    story: "logs are compared by length and not by their last term first",
    edits: [
      edit(
        "log.ts",
        "lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.last)",
        "lastIndex >= this.last || lastTerm < 0"
      )
    ]
  },
  {
    name: "half-is-majority",
    seed: 1,
    story: "two of four are taken for a majority",
    edits: [
      edit("quorum.ts", "Math.floor(voters.length / 2) + 1", "Math.max(1, Math.ceil(voters.length / 2))")
    ]
  },
  {
    name: "snapshot-keeps-tail",
    seed: 58,
    story: "a received snapshot keeps entries after it that do not follow it (hashicorp/raft, CockroachDB)",
    edits: [
      edit(
        "step.ts",
        "log: Log.after(fact.index, fact.term),",
        "log: before.log.last > fact.index && before.log.base < fact.index ? before.log.compact(fact.index) : Log.after(fact.index, fact.term),"
      )
    ]
  },
  {
    name: "old-snapshot-installed",
    seed: 8,
    story: "a snapshot that arrives late takes the place of a newer log",
    edits: [
      edit("following.ts", "if (index <= step.now.commit) return accept", "if (index < 0) return accept"),
      edit(
        "following.ts",
        "  if (index > now.commit) {\n    // The whole",
        "  if (index > 0) {\n    // The whole"
      ),
      edit("following.ts", "if (index > now.commit && !whole)", "if (!whole)")
    ]
  },
  {
    name: "members-not-rolled-back",
    seed: 7,
    story: "a configuration stays when its entry is cut off (etcd, hashicorp/raft)",
    edits: [
      edit(
        "step.ts",
        "before.history.filter(({ index }) => index < from)",
        "before.history.filter(() => from > 0)"
      )
    ]
  },
  {
    name: "two-changes-at-once",
    seed: 7,
    story: "members change again before the last change is committed",
    edits: [
      edit(
        "quorum.ts",
        "if (stays) return { ...noMembers, voters: from.voters, learners }",
        "if (stays || !stays) return { ...noMembers, voters, learners }"
      ),
      edit(
        "leading.ts",
        "if (voters.length === 0 || isTwice)",
        "if (voters.length === 0 || isTwice || voters.filter((id) => !members.voters.includes(id)).length + members.voters.filter((id) => !voters.includes(id)).length > 1)"
      ),
      edit(
        "leading.ts",
        "step.membersIndex > now.commit || isJoint(members) || now.commit < now.began",
        "isJoint(members)"
      )
    ]
  },
  {
    name: "joint-commits-by-new",
    seed: 8,
    story: "in joint consensus only the new voters are counted for commits",
    edits: [
      edit(
        "quorum.ts",
        "Math.min(reachedBy(voters, valueOf), reachedBy(outgoing, valueOf))",
        "reachedBy(voters, valueOf)"
      )
    ]
  },
  {
    name: "learners-counted",
    seed: 1,
    story: "copies at learners count for a majority",
    edits: [
      edit(
        "quorum.ts",
        "voters.length === 0 ? 0 : Math.min(reachedBy(voters, valueOf)",
        "voters.length === 0 ? 0 : Math.min(Math.max(reachedBy(voters, valueOf), ...arguments_(valueOf))"
      ),
      edit(
        "quorum.ts",
        "export const isJoint",
        "let learning: ReadonlyArray<string> = []\nconst arguments_ = (valueOf: (id: string) => number) => learning.map(valueOf).filter((value) => value > 0)\nexport const isJoint"
      ),
      edit(
        "quorum.ts",
        "export const quorumValue = ({ voters, outgoing }: Members, valueOf: (id: string) => number): number =>\n",
        "export const quorumValue = ({ voters, outgoing, learners }: Members, valueOf: (id: string) => number): number =>\n  (learning = learners) &&\n"
      )
    ]
  },
  {
    name: "asked-and-never-asks",
    seed: 27,
    story:
      "a learner, or a member that its own last entry removes, never campaigns, though it is asked for its vote and alone has that entry (thesis, 4.2.2)",
    edits: [edit("elections.ts", "isVoter(members, now.id) || now.isAsked", "isVoter(members, now.id)")]
  },
  {
    name: "read-without-round",
    seed: 2,
    story: "a leader answers reads without asking whether it still leads",
    edits: [
      edit("reads.ts", "    if (round <= answered) step.ask", "    if (round <= answered + 1000) step.ask"),
      edit(
        "reads.ts",
        "now.reads.filter(({ round }) => round > answered)",
        "now.reads.filter(({ round }) => round > answered + 1000)"
      )
    ]
  },
  {
    name: "read-before-own-entry",
    seed: 1,
    story: "a new leader answers reads by what it happens to know to be committed (thesis, 6.4)",
    edits: [
      edit("reads.ts", "index: Math.max(now.commit, now.began)", "index: now.commit"),
      edit("reads.ts", "now.reads.length === 0 || now.commit < now.began", "now.reads.length === 0")
    ]
  },
  {
    name: "lease-too-long",
    seed: 2,
    story: "the lease is longer than the voters' promise by as much as clocks may differ",
    edits: [
      edit("reads.ts", "(1 - settings.leaseDriftPercent / 100)", "(1 + settings.leaseDriftPercent / 100)")
    ]
  },
  {
    name: "lease-from-answer",
    seed: 23,
    story: "the lease begins with the answer and not with the question",
    edits: [edit("reads.ts", "now.leaseMs = last.sentMs +", "now.leaseMs = step.nowMs +")]
  },
  {
    name: "lease-forgotten-with-the-term",
    seed: 5671,
    story:
      "who has promised a leader to wait votes all the same, once a refusal has told it of the later term (etcd, 3.6, looks at the promise only where the term is new)",
    edits: [
      edit("elections.ts", "step.now.leader === null && !isBound(step, message)", "step.now.leader === null")
    ]
  },
  {
    name: "part-anew-for-each-answer",
    seed: 32_940,
    story: "each answer of before has earlier parts of a snapshot sent again, which makes more of them",
    edits: [edit("leading.ts", "    if (round <= to.partedRound) return\n", "")]
  },
  {
    name: "lease-in-transfer",
    seed: 2,
    story: "reads by lease go on while another is asked to campaign without regard for it (etcd)",
    edits: [edit("reads.ts", "!now.wasTransferred && ", "")]
  },
  {
    name: "restart-commits-all",
    seed: 1,
    story: "a restart takes its whole log for committed",
    edits: [edit("decide.ts", "now.commit = log.base", "now.commit = log.last")]
  },
  {
    name: "leader-before-vote",
    seed: 8,
    story: "a leader of one voter speaks before its term and vote are on its disk (found here by seed 847)",
    edits: [edit("sending.ts", "    now.isSure\n", "    true\n")]
  },
  {
    name: "leaked-flow-control",
    seed: 374,
    story: "what the log has forgotten is never subtracted from what is under way (found here by seed 322)",
    edits: [
      edit(
        "leading.ts",
        "if (index + 1 >= next) return 0\n  return before.match < log.base\n    ? log.bytes(index + 1, next - 1)\n    : before",
        "return before"
      )
    ]
  },
  {
    name: "joint-elects-by-new",
    seed: 1,
    story: "in joint consensus only the new voters elect",
    edits: [
      edit(
        "quorum.ts",
        "has(voters, agrees) && (outgoing.length === 0 || has(outgoing, agrees))",
        "has(voters, agrees)"
      )
    ]
  },
  {
    name: "stale-answer-counted",
    seed: 40,
    story: "an answer to an append of an earlier term counts for this one",
    edits: [
      edit(
        "decide.ts",
        "else if (message.term < step.term) return",
        'else if (message.term < step.term && message.type !== "appended") return'
      )
    ]
  },
  {
    name: "promise-forgotten",
    seed: 2,
    story: "a restart forgets the promise that a lease relies on",
    edits: [
      edit(
        "decide.ts",
        "settings.leaseDriftPercent > 0 && step.term > 0 ? nowMs + settings.electionMs : nowMs",
        "nowMs"
      )
    ]
  },
  {
    name: "storage-answer-of-old-term",
    seed: 10,
    story:
      "what was on the disk of entries of an old term counts for those that took their place (etcd, asynchronous writes)",
    edits: [edit("following.ts", "    now.stored = Math.min(now.stored, from)\n", "")]
  },
  {
    name: "commit-beyond-verified",
    seed: 10,
    story:
      "heartbeats carry no entries, and commit what follows the one that was looked at (etcd, hashicorp/raft)",
    edits: [
      edit("sending.ts", "? to.waits && !isHeartbeat", "? to.waits"),
      edit("following.ts", "Math.min(commit, verified)", "Math.min(commit, step.log.last)")
    ]
  },
  {
    name: "campaign-with-unapplied-members",
    seed: 8,
    story: "votes are counted by the members that are known to be committed, not by those in the log (etcd)",
    edits: [
      edit(
        "elections.ts",
        "hasQuorum(step.members, (id) => step.now.votes[id] === true)",
        "hasQuorum(step.kept.history.findLast(({ index }) => index <= step.now.commit)?.members ?? step.members, (id) => step.now.votes[id] === true)"
      )
    ]
  },
  {
    name: "single-change-too-early",
    seed: 90,
    story: "single-server changes before an entry of the term is committed (Ongaro, raft-dev, 2015)",
    edits: [
      edit(
        "quorum.ts",
        "if (stays) return { ...noMembers, voters: from.voters, learners }",
        "if (stays || !stays) return { ...noMembers, voters, learners }"
      ),
      edit(
        "leading.ts",
        "if (voters.length === 0 || isTwice)",
        "if (voters.length === 0 || isTwice || voters.filter((id) => !members.voters.includes(id)).length + members.voters.filter((id) => !voters.includes(id)).length > 1)"
      ),
      edit("leading.ts", "|| isJoint(members) || now.commit < now.began", "|| isJoint(members)")
    ]
  },
  {
    name: "hint-ends-promise",
    seed: 6,
    story: "the end of the leader's connection ends the promise that its lease relies on",
    edits: [edit("elections.ts", "if (settings.leaseDriftPercent === 0) now", "now")]
  },
  {
    name: "damage-cut-off",
    seed: 8,
    story:
      "a record that is damaged and was acknowledged is cut off as a torn end is (Alagappan et al., FAST 2018, of several)",
    edits: [
      {
        file: "src/kernel/records.ts",
        find: "if (intact < acknowledged) return",
        put: "if (intact < 0) return"
      }
    ]
  },
  {
    name: "place-unchecked",
    seed: 10,
    story:
      "a checksum over what a record says, and not over where it belongs: misdirected writes pass for good ones",
    edits: [
      { file: "src/kernel/records.ts", find: "|| one.sequence !== intact + 1", put: "" },
      {
        file: "src/kernel/records.ts",
        find: "crc32c(`",
        put: "crc32c(text || `"
      }
    ]
  }
]
