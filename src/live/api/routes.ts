/** Which endpoint a request is for, by its template: what metrics may be labelled with. */
import { Api } from "./api.ts"

interface Template {
  readonly text: string
  /** Null where any segment fits. */
  readonly segments: ReadonlyArray<string | null>
}

const templates = new Map<string, Array<Template>>()
for (const group of Object.values(Api.groups)) {
  const endpoints = Object.values(group.endpoints) as ReadonlyArray<{ method: string; path: string }>
  for (const { method, path } of endpoints) {
    const segments = path.split("/").map((segment) => (segment.startsWith(":") ? null : segment))
    const key = `${method} ${segments.length}`
    templates.set(key, [...(templates.get(key) ?? []), { text: path, segments }])
  }
}

/** `/v1/vms/:name/start`; `none` where no endpoint has this path. */
export function routeOf(method: string, url: string): string {
  const query = url.indexOf("?")
  const parts = (query < 0 ? url : url.slice(0, query)).split("/")
  const found = templates
    .get(`${method} ${parts.length}`)
    ?.find(({ segments }) => segments.every((segment, index) => segment === null || segment === parts[index]))
  return found?.text ?? "none"
}
