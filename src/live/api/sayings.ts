/** What the requests of people say to actors: those that need to know nothing else for it. */
import { clusterStream } from "../../events/cluster.ts"

interface Named {
  readonly params: { readonly name: string }
}

const ofVm = (type: string) => (request: Named) => ({
  stream: `vm/${request.params.name}`,
  message: { type }
})

export const vmSayings = {
  delete: ofVm("vm.delete"),
  start: ofVm("vm.start"),
  stop: ({ params, query }: Named & { readonly query: { readonly force?: "true" | "false" } }) => ({
    stream: `vm/${params.name}`,
    message: { type: "vm.stop", force: query.force === "true" }
  }),
  pause: ofVm("vm.pause"),
  resume: ofVm("vm.resume"),
  reboot: ofVm("vm.reboot"),
  snapshot: ({ params, payload }: Named & { readonly payload: { readonly snapshot: string } }) => ({
    stream: `vm/${params.name}`,
    message: { type: "vm.snapshot", snapshot: payload.snapshot }
  })
}

interface Reasoned {
  readonly payload: { readonly reason?: string } | null
}

export const hostSayings = {
  drain: ({ params, payload }: Named & Reasoned) => ({
    stream: `host/${params.name}`,
    message: { type: "host.drain", reason: payload?.reason ?? "" }
  }),
  activate: ({ params }: Named) => ({ stream: `host/${params.name}`, message: { type: "host.activate" } }),
  confirmOff: ({ params, payload }: Named & Reasoned) => ({
    stream: `host/${params.name}`,
    message: { type: "host.confirmOff", reason: payload?.reason ?? "" }
  })
}

export const clusterSayings = {
  remove: ({ params, payload }: Named & Reasoned) => ({
    stream: clusterStream,
    message: { type: "cluster.remove", node: params.name, reason: payload?.reason ?? "" }
  }),
  lead: ({ params, payload }: Named & Reasoned) => ({
    stream: clusterStream,
    message: { type: "cluster.lead", node: params.name, reason: payload?.reason ?? "" }
  })
}

interface Cancel extends Reasoned {
  readonly params: { readonly id: string }
  readonly query: { readonly force?: "true" | "false" }
}

export const migrationSayings = {
  cancel: ({ params, payload, query }: Cancel) => ({
    stream: `migration/${params.id}`,
    message: {
      type: "migration.cancel",
      reason: payload?.reason ?? "",
      ...(query.force === "true" ? { force: true } : {})
    }
  })
}
