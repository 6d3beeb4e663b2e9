/** Lists in pages. The next one's address is in the header `link` (RFC 8288); without it there is none. */
import { HttpServerResponse } from "effect/http"
import { InvalidRequest } from "./problems.ts"

/** Rows of a page, at most and unless told. */
export const page_max = 1000

interface Paging {
  /** The key of the last row of the page before. */
  readonly after?: string
  readonly limit?: number
}

const nextLink = (path: string, query: object, next: object): string => {
  const parameters = new URLSearchParams()
  for (const [key, value] of Object.entries({ ...query, ...next })) parameters.set(key, String(value))
  return `<${path}?${parameters.toString()}>; rel="next"`
}

/** `rows` as they are; `next` is what the query of the page after it has, null at the end. */
export const page = (path: string, query: object, rows: ReadonlyArray<unknown>, next: object | null) =>
  HttpServerResponse.jsonUnsafe(rows, next === null ? {} : { headers: { link: nextLink(path, query, next) } })

/** A page of rows in the order of their names; `after` need not be the name of one that still is there. */
export function pageByName<Row extends { readonly name: string }>(
  path: string,
  query: Paging,
  rows: ReadonlyArray<Row>
) {
  const { after, limit = page_max } = query
  const left = after === undefined ? rows : rows.filter(({ name }) => name > after)
  const shown = left.slice(0, limit)
  return page(path, query, shown, left.length > limit ? { after: shown.at(-1)?.name } : null)
}

/** A page of rows in an order of their own; `after` has to be the id of one of them. */
export function pageById<Row extends { readonly id: string }>(
  path: string,
  query: Paging,
  rows: ReadonlyArray<Row>
) {
  const { after, limit = page_max } = query
  const at = after === undefined ? -1 : rows.findIndex(({ id }) => id === after)
  if (after !== undefined && at < 0) {
    const allowed = "the id of a row of this list: the last one of the page before"
    const errors = [{ path: "query.after", value: after, allowed }]
    return new InvalidRequest({ detail: `query.after: allowed: ${allowed}`, errors })
  }
  const shown = rows.slice(at + 1, at + 1 + limit)
  const isMore = rows.length > at + 1 + limit
  return page(path, query, shown, isMore ? { after: shown.at(-1)?.id } : null)
}
