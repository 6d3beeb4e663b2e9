/** Views of a world without hosts. */
import { Effect, Layer } from "effect"
import { Views } from "../../src/kernel/ports/views.ts"

export const noHosts: Views["Service"] = {
  hosts: (position) => Effect.succeed({ hosts: [], position }),
  loads: (position) => Effect.succeed({ hosts: 0, meanPercent: 0, most: [], position })
}

export const noViews = Layer.succeed(Views, noHosts)
