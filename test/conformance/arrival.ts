import type { Arrival } from "../../src/kernel/ports/hypervisor.ts"

export const arrival = (migration: string): Arrival => ({
  ...{ migration, from: "source" },
  timeoutMs: 60_000,
  postCopy: true
})
