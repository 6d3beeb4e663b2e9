/**
 * The ids of an actor's latest inputs, by which a repeated command is known.
 *
 * Every turn makes a new state, and every command is looked for among the ids of the last. States that follow one another
 * share one log that only grows, and each sees it up to its own end; so a turn copies none, and a look compares numbers.
 */

/** A repeated command is recognised among this many latest ones; older repeats are caught by the store. */
export const recentInputs_max = 64

/** A log this much longer than what is seen of it is left to the states that have it. */
const unseen_max = 32

interface Log {
  readonly ids: Array<string>
  /** `printOf` each id. */
  readonly prints: Array<number>
}

/** A log this short is copied at each turn: one that grows keeps room for more, and most actors have little to remember. */
const short_max = 16

/** Immutable to whoever holds it. */
export interface Recent {
  readonly log: Log
  /** So many of the log's ids are this state's; what follows is of states after it, or of turns that were not kept. */
  readonly end: number
}

export const recentOf = (ids: ReadonlyArray<string>): Recent => ({
  log: { ids: [...ids], prints: ids.map(printOf) },
  end: ids.length
})

const begin = (end: number) => Math.max(0, end - recentInputs_max)

/** Oldest first. */
export const idsOf = ({ log, end }: Recent): ReadonlyArray<string> => log.ids.slice(begin(end), end)

export function isRecent({ log, end }: Recent, id: string): boolean {
  const print = printOf(id)
  let place = log.prints.indexOf(print, begin(end))
  while (place >= 0 && place < end) {
    if (log.ids[place] === id) return true
    place = log.prints.indexOf(print, place + 1)
  }
  return false
}

/** The same, with a log of its own that has no more than what is seen. */
const copyOf = ({ log, end }: Recent): Recent => ({
  log: { ids: log.ids.slice(begin(end), end), prints: log.prints.slice(begin(end), end) },
  end: end - begin(end)
})

/** The same and `id`, with a log of its own that has no room for more. */
const longer = ({ log, end }: Recent, id: string): Recent => ({
  log: { ids: log.ids.slice(0, end).concat(id), prints: log.prints.slice(0, end).concat(printOf(id)) },
  end: end + 1
})

/** The same with `id` as the latest; several facts of one input are one. */
export function remember(recent: Recent, id: string): Recent {
  if (recent.end > 0 && recent.log.ids[recent.end - 1] === id) return recent
  if (recent.end < short_max) return longer(recent, id)
  const isLast = recent.log.ids.length === recent.end
  const { log, end } = isLast && recent.end < recentInputs_max + unseen_max ? recent : copyOf(recent)
  log.ids.push(id)
  log.prints.push(printOf(id))
  return { log, end: end + 1 }
}

/** Different for most ids that differ: those that people count up, or draw, differ at the end. */
function printOf(id: string): number {
  let print = id.length
  for (let place = Math.max(0, id.length - 8); place < id.length; place++)
    print = (Math.imul(print, 31) + id.charCodeAt(place)) | 0
  return print
}
