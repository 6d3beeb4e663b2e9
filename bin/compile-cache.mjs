/**
 * Node's cache of compiled code, and of TypeScript without its types, in a folder of ours: a command starts a third of a second sooner.
 * Who can write there has us run what they like, so it is used only where nobody else can, and left out without a word where not.
 */
import { mkdirSync, realpathSync, statSync } from "node:fs"
import * as module from "node:module"
import { homedir } from "node:os"
import { dirname, join } from "node:path"

/** Nobody but us and root can put something else in its place, or in the place of a folder above it. */
function isOurs(folder, uid) {
  const own = realpathSync(folder)
  for (let path = own; ; path = dirname(path)) {
    const { mode, uid: owner } = statSync(path)
    const isSticky = (mode & 0o1000) !== 0 && path !== own
    if ((owner !== uid && owner !== 0) || ((mode & 0o022) !== 0 && !isSticky)) return false
    if (path === dirname(path)) return true
  }
}

/** By systemd's `CacheDirectory=`, else as the XDG base directories say, for root /var/cache. */
function folderOf(environment, uid) {
  const { CACHE_DIRECTORY: given, XDG_CACHE_HOME: base } = environment
  if (given) return given
  return uid === 0 ? "/var/cache/novacron" : join(base || join(homedir(), ".cache"), "novacron")
}

/** For this process and those that it starts. `NODE_COMPILE_CACHE` and `NODE_DISABLE_COMPILE_CACHE` come first. */
export function useCompileCache() {
  const { env } = process
  if (env.NODE_COMPILE_CACHE || env.NODE_DISABLE_COMPILE_CACHE) return
  try {
    const uid = process.getuid()
    const folder = folderOf(env, uid)
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    if (!isOurs(folder, uid)) return
    module.enableCompileCache?.(folder)
    env.NODE_COMPILE_CACHE = folder
  } catch {
    // No home, no room, not allowed: then it is compiled anew each time.
  }
}
