import { hypervisorConformance } from "../conformance/hypervisor.ts"
import { makeTwoQemuHosts } from "./qemu-hosts.ts"

hypervisorConformance("qemu", makeTwoQemuHosts)
