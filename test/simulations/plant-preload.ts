/** For `node --import`: plants the mutant of the group that the environment names, in this process and each of its threads. */
import { mutants } from "./mutants.ts"
import { plant } from "./plant.ts"

const name = process.env["NOVACRON_TEST_MUTANT"]
const mutant = mutants.find((one) => one.name === name)
if (mutant === undefined) throw new Error(`no mutant ${name}`)
plant(mutant)
