/** Planted faults of SWIM: mistakes that other implementations have made, or that one makes, as edits of the production source. */
import type { Mutant } from "./mutants.ts"

const edit = (file: string, find: string, put: string) => ({ file: `src/actors/swim/${file}`, find, put })

export const swimMutants: ReadonlyArray<Mutant> = [
  {
    name: "newer-death-dropped",
    seed: 26,
    story:
      "a death at a newer incarnation than is known is dropped, so that a stale word of its life resurrects it",
    edits: [
      edit(
        "updates.ts",
        "if (!isLater(update, peer)) {",
        'if (!isLater(update, peer) || (update.status === "dead" && update.incarnation > peer.incarnation)) {'
      )
    ]
  },
  {
    name: "stale-alive-clears",
    seed: 1,
    story:
      "that somebody lives clears a suspicion of the same incarnation, so that old news undoes what is found out",
    edits: [
      edit(
        "updates.ts",
        "rankOf(one.status) > rankOf(other.status))",
        '(rankOf(one.status) > rankOf(other.status) || (one.status === "alive" && other.status === "suspect")))'
      )
    ]
  },
  {
    name: "restart-in-old-incarnation",
    seed: 1,
    story:
      "a restart begins with the first incarnation: after a mass restart all accuse all by what they hear of before",
    edits: [
      edit(
        "decide.ts",
        "  renew(step, step.incarnation + 1)\n}\n\nfunction describe",
        "  renew(step, 1)\n}\n\nfunction describe"
      )
    ]
  },
  {
    name: "incarnation-not-kept",
    seed: 1,
    story: "the incarnation is not on the disk before it is spoken of",
    edits: [
      {
        file: "src/events/swim.ts",
        find: `  "swim.noted",\n`,
        put: `  "swim.noted",\n  "swim.incarnated",\n`
      }
    ]
  },
  {
    name: "own-detection-not-spread",
    seed: 1,
    story: "whoever finds out by itself that one is gone tells nobody",
    edits: [
      edit(
        "updates.ts",
        '  remind(step, suspicion.deadlineMs, peer.id)\n  step.spread(accusation(peer, "suspect", by))',
        '  remind(step, suspicion.deadlineMs, peer.id)\n  if (by !== step.now.id) step.spread(accusation(peer, "suspect", by))'
      )
    ]
  },
  {
    name: "death-not-spread",
    seed: 1,
    story: "a death is told to nobody; each waits for a suspicion of its own",
    edits: [
      edit(
        "updates.ts",
        '  step.spread({ id, status, incarnation, by, address: "", meta: "" })',
        '  if (by !== step.now.id) step.spread({ id, status, incarnation, by, address: "", meta: "" })'
      )
    ]
  },
  {
    name: "equal-incarnation-not-refuted",
    seed: 1,
    story: "a suspicion is only refuted when its incarnation is above the own one, and it never is",
    edits: [
      edit(
        "updates.ts",
        "if (update.incarnation < step.incarnation) {",
        "if (update.incarnation <= step.incarnation) {"
      )
    ]
  },
  {
    name: "refuted-in-same-incarnation",
    seed: 1,
    story: "a refutation does not raise the own incarnation above what it refutes",
    edits: [edit("updates.ts", "renew(step, update.incarnation + 1)", "renew(step, update.incarnation)")]
  },
  {
    name: "left-resurrected",
    seed: 1,
    story: "who has left is suspected, and found, again",
    edits: [edit("table.ts", '["alive", "suspect", "dead", "left"]', '["left", "alive", "suspect", "dead"]')]
  },
  {
    name: "refuted-suspicion-kills",
    seed: 1,
    story: "the timer of a suspicion goes on when it is refuted",
    edits: [
      edit(
        "updates.ts",
        "    if (peer.suspicion !== null) {\n      const",
        '    if (peer.status === "alive" && peer.id !== now.id) bury(step, peer, { status: "dead", by: now.id })\n    else if (peer.suspicion !== null) {\n      const'
      )
    ]
  },
  {
    name: "nack-is-answer",
    seed: 4,
    story: "a relay that heard nothing is taken for one that did",
    edits: [
      edit(
        "probing.ts",
        "nacks: [...probe.nacks, from] }",
        "nacks: [...probe.nacks, from], isAnswered: true }"
      )
    ]
  },
  {
    name: "relay-answers-by-itself",
    seed: 1,
    story: "who is asked to probe another says that it is there, without asking it",
    edits: [
      edit(
        "probing.ts",
        "  const news = buddyNews(step, now.table.get(asked.target))",
        '  step.send(address, { type: "ack", sequence: asked.sequence })\n  const news = buddyNews(step, now.table.get(asked.target))'
      )
    ]
  },
  {
    name: "too-long-datagrams",
    seed: 1,
    story: "news is packed into datagrams without regard for their size, and the network drops them",
    edits: [edit("queue.ts", "else if (head.sizeBytes > left) {", "else if (left < 0) {")]
  },
  {
    name: "description-without-incarnation",
    seed: 1,
    story: "what a member tells of itself changes without a new incarnation, so that nobody takes it over",
    edits: [
      edit(
        "decide.ts",
        "step.now.meta = meta\n  renew(step, step.incarnation + 1)",
        "step.now.meta = meta\n  step.spread(step.self)"
      )
    ]
  },
  {
    name: "digests-without-incarnation",
    seed: 8,
    story: "comparisons don't see that one side has heard of an older life",
    edits: [
      edit("table.ts", "mix(hashOf(id) ^ mix(incarnation | 0) ^", "mix(hashOf(id) ^ mix(incarnation & 0) ^")
    ]
  },
  {
    name: "never-well-again",
    seed: 1,
    story: "local health gets worse and never better, until nothing is noticed in time",
    edits: [edit("probing.ts", "ail(step, -1)", "ail(step, 0)")]
  },
  {
    name: "parted-for-ever",
    seed: 4,
    story: "the dead, and seeds, are never looked for again: networks that were parted stay so",
    edits: [
      edit("joining.ts", "if (lost !== null) compareWith", "if (lost?.id === step.now.id) compareWith"),
      edit("joining.ts", "!isPresent(step, seed))", "isPresent(step, seed))")
    ]
  },
  {
    name: "stall-for-ever",
    seed: 11,
    story: "who stood still once holds nothing against anybody any more",
    edits: [edit("decide.ts", "now.graceMs = step.after(settings.periodMs)", "now.graceMs = never")]
  }
]
