/**
 * Brings a journal that is behind to where another node's is. All journals of a group are beginnings of one another, so what
 * is missing is fetched fact by fact and appended; the chain of hashes says that it is the same.
 */
import { Effect, Option, Schedule, Schema } from "effect"
import type { Recorded } from "../events/envelope.ts"
import type { ActorKind } from "./actor.ts"
import { InstallTarget, markSnapshot } from "./ordered.ts"
import type { Mark } from "./ordered.ts"
import type { Consensus, SnapshotPlace } from "./ports/consensus.ts"
import { Unavailable } from "./ports/consensus.ts"
import { StoreDamaged } from "./ports/event-store.ts"
import type { EventStore, RevisionConflict, StoreFailure } from "./ports/event-store.ts"
import { fold } from "./replay.ts"
import type { Residents } from "./residents.ts"

export type InstallError = Unavailable | StoreFailure | RevisionConflict | StoreDamaged

/** Facts of one request. */
const page = 500
const retryPause = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")])

const decodeTarget = Schema.decodeUnknownOption(Schema.fromJsonString(InstallTarget))

export class Installer {
  readonly #store: EventStore["Service"]
  readonly #order: Consensus["Service"]
  readonly #kinds: ReadonlyMap<string, ActorKind>
  readonly #residents: Residents
  /** Of the last fact that was added. */
  lastMs = 0

  constructor(
    store: EventStore["Service"],
    order: Consensus["Service"],
    kinds: ReadonlyArray<ActorKind>,
    residents: Residents
  ) {
    this.#store = store
    this.#order = order
    this.#kinds = new Map(kinds.map((kind) => [kind.kind, kind]))
    this.#residents = residents
  }

  /** Become what `place` stands for, from this node's journal. The mark of then, on the disk. */
  install(from: string, place: SnapshotPlace, before: Mark): Effect.Effect<Mark, InstallError> {
    const target = decodeTarget(place.state)
    if (Option.isNone(target)) {
      const reason = "what it says of its snapshot can't be understood"
      return Effect.fail(new Unavailable({ node: from, mayHappen: false, reason }))
    }
    return this.#follow(from, target.value, before)
  }

  /**
   * Go on with what was begun before a restart, with the help of whoever can; until it is done nothing can be applied. Who the
   * members are is not known where the log itself came with the snapshot: `heard` are those who offer theirs meanwhile.
   */
  finish(target: InstallTarget, heard: () => ReadonlyArray<string>): Effect.Effect<Mark> {
    const before = { index: 0, term: 0, installing: target }
    const anyone = Effect.suspend((): Effect.Effect<Mark, InstallError> => {
      const { node, members } = this.#order.status()
      const known = [...members.voters, ...members.outgoing, ...members.learners, ...heard()]
      const none = new Unavailable({ node, mayHappen: false, reason: "no other member is known" })
      return [...new Set(known)]
        .filter((id) => id !== node)
        .reduce<Effect.Effect<Mark, InstallError>>(
          (tried, id) => tried.pipe(Effect.catch(() => this.#follow(id, target, before))),
          Effect.fail(none)
        )
    })
    return anyone.pipe(
      Effect.tapError((error) => Effect.logWarning(`the journal is not whole yet: ${String(error)}`)),
      Effect.retry({ schedule: retryPause }),
      Effect.orDie
    )
  }

  readonly #follow = Effect.fnUntraced(function* (
    this: Installer,
    from: string,
    target: InstallTarget,
    before: Mark
  ): Effect.fn.Return<Mark, InstallError> {
    const mark = markSnapshot({ ...before, installing: target })
    for (;;) {
      const head = yield* this.#store.head
      if (head.position > target.position || (head.position === target.position && head.hash !== target.hash))
        return yield* this.#parted(head.position, from)
      if (head.position === target.position) break
      const facts = yield* this.#order.factsAfter(
        from,
        head.position,
        Math.min(page, target.position - head.position)
      )
      if (facts.length === 0) {
        const reason = `it has no facts after ${head.position}, and ${target.position} are needed`
        return yield* new Unavailable({ node: from, mayHappen: false, reason })
      }
      yield* this.#add(facts, mark, from)
    }
    const done = { index: target.index, term: target.term, installing: null }
    yield* this.#store.append([], markSnapshot(done))
    yield* this.#store.sync
    return done
  })

  readonly #add = Effect.fnUntraced(function* (
    this: Installer,
    facts: ReadonlyArray<Recorded>,
    mark: ReturnType<typeof markSnapshot>,
    from: string
  ): Effect.fn.Return<void, InstallError> {
    // Hashes are of content and place, so the same facts in the same order have the same.
    const head = yield* this.#store.head
    const first = facts[0]
    if (first === undefined || first.previousHash !== head.hash || first.position !== head.position + 1)
      return yield* this.#parted(head.position, from)
    const appends = facts.map((fact) => ({
      stream: fact.stream,
      expectedRevision: fact.revision - 1,
      facts: [fact]
    }))
    const recorded = yield* this.#store.append(appends, mark)
    const wrong = recorded.find((fact, at) => fact.hash !== facts[at]?.hash)
    if (wrong !== undefined) return yield* this.#parted(wrong.position, from)
    // An actor that is not in memory is loaded when it is asked for.
    const known = new Set(recorded.filter(({ revision }) => revision === 0).map(({ stream }) => stream))
    const isKnown = ({ stream }: Recorded) => known.has(stream) || this.#residents.has(stream)
    for (const fact of recorded) if (!isKnown(fact)) this.#residents.forget(fact.stream)
    fold(this.#kinds, this.#residents, recorded.filter(isKnown))
    this.lastMs = recorded.at(-1)?.timeMs ?? this.lastMs
  })

  /** It must not be: both were decided by one group. */
  #parted(position: number, from: string): StoreDamaged {
    const reason = `it is not what ${from} has there: this journal is another one's, or was changed`
    return new StoreDamaged({ path: "the journal", position, reason })
  }
}
