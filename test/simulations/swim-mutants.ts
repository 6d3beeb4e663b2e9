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
  },
  {
    name: "health-slows-nothing",
    seed: 2,
    story: "who is not well probes as fast as ever, and accuses others of what is its own",
    edits: [edit("probing.ts", "now.health + 1 : 1", "1 : 1")]
  },
  {
    name: "health-leaves-timeout",
    seed: 2,
    story: "who is not well takes more time for a period, and none for an answer",
    edits: [edit("probing.ts", "settings.timeoutMs * slowness(step)", "settings.timeoutMs")]
  },
  {
    name: "missing-nacks-overlooked",
    seed: 4,
    story: "that not even relays were heard is no sign of the own health",
    edits: [edit("probing.ts", "? 1 : probe.relays.length - probe.nacks.length", "? 1 : 0")]
  },
  {
    name: "nack-not-sent",
    seed: 4,
    story: "a relay that heard nothing says nothing, and whoever asked it doubts itself",
    edits: [edit("probing.ts", "if (nackMs <= nowMs && settings", "if (nackMs < 0 && settings")]
  },
  {
    name: "refuting-is-healthy",
    seed: 2,
    story: "who has to refute that it is gone does not doubt its health",
    edits: [edit("updates.ts", "if (settings.lifeguard.probe) ail(step, 1)", "")]
  },
  {
    name: "stall-is-healthy",
    seed: 4,
    story: "who stood still does not doubt its health",
    edits: [edit("decide.ts", "if (settings.lifeguard.probe) ail(step, 1)", "")]
  },
  {
    name: "suspect-pinged-without-word",
    seed: 1,
    story: "who probes a suspect does not tell it that it is one (Lifeguard's buddy system)",
    edits: [edit("probing.ts", "target: target.id }, buddyNews(step, target))", "target: target.id })")]
  },
  {
    name: "suspect-answered-without-word",
    seed: 1,
    story: "a suspect that asks is answered, and not told that it is one",
    edits: [edit("probing.ts", "buddyNews(step, step.now.table.get(from))", "[]")]
  },
  {
    name: "relay-keeps-suspicion",
    seed: 1,
    story: "who probes a suspect for another does not tell it that it is one",
    edits: [edit("probing.ts", "target: asked.target }, news)", "target: asked.target }, news.slice(1))")]
  },
  {
    name: "confirmations-ignored",
    seed: 8,
    story: "a suspicion lasts as long as it may, however many have it too",
    edits: [edit("updates.ts", "suspicionMs(suspicion, confirmed.length - 1)", "suspicionMs(suspicion, 0)")]
  },
  {
    name: "one-confirms-often",
    seed: 8,
    story: "the same accuser counts each time that it is heard, so that one is enough to bury another",
    edits: [edit("updates.ts", "suspicion.by.includes(by) || ", "")]
  },
  {
    name: "suspicion-short-at-once",
    seed: 8,
    story: "a suspicion begins as short as it may become",
    edits: [edit("updates.ts", "step.after(suspicionMs(begun, 0))", "step.after(begun.leastMs)")]
  },
  {
    name: "suspicion-without-confirmation",
    seed: 8,
    story: "nobody's confirmation is awaited, as if the group were too small for any",
    edits: [edit("updates.ts", "? Math.max(0, factor - 2) : 0", "? 0 : 0")]
  },
  {
    name: "few-confirm-as-many",
    seed: 5,
    story: "more confirmations are awaited than there are members: small groups wait for ever so long",
    edits: [edit("updates.ts", "lifeguard.suspicion && present - 2 >= factor - 2 ?", "lifeguard.suspicion ?")]
  },
  {
    name: "suspicion-shortened-evenly",
    seed: 8,
    story: "each confirmation takes as much off, where the first ones should take most",
    edits: [
      edit(
        "updates.ts",
        "Math.log(Math.min(confirmed, wanted) + 1) / Math.log(wanted + 1)",
        "Math.min(confirmed, wanted) / wanted"
      )
    ]
  }
]
