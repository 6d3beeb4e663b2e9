/** All rules by the name that STYLE.md gives them. */
import {
  fileLength,
  forbiddenGlobals,
  functionLength,
  leftOutTests,
  silencers,
  typeEscapes,
  unfinished
} from "./code.ts"
import { barrels, cycles, deadFiles, importTable } from "./imports.ts"
import type { Rule } from "./source.ts"
import { links, names, ports } from "./tree.ts"

export const rules = {
  "the import table": importTable,
  "no import cycles": cycles,
  "no barrels": barrels,
  "no dead files": deadFiles,
  "time, chance and environment by ports": forbiddenGlobals,
  "no way around the types": typeEscapes,
  "no silenced compiler": silencers,
  "no test left out": leftOutTests,
  "files of at most 500 lines": fileLength,
  "functions of at most 70 lines": functionLength,
  "nothing unfinished": unfinished,
  "names that say something": names,
  "every port in a world": ports,
  "links that lead somewhere": links
} satisfies Record<string, Rule>
