/** What was seen of charts that run without a kernel: the roles of members, what they become, and what they were given in each. */

/** Each of its lives begins in the first role. */
interface Member {
  readonly id: string
  readonly life: number
  readonly role: string
}

export class Roles {
  /** `input <role> <input>`, `state <role>` and `move <role> <role>`. */
  readonly coverage = new Set<string>()
  readonly #first: string
  readonly #seen = new Map<string, Member>()

  constructor(first: string) {
    this.#first = first
  }

  /** In which role it took its last step. */
  before({ id, life }: Member): string {
    const seen = this.#seen.get(id)
    return seen?.life === life ? seen.role : this.#first
  }

  took(role: string, input: string): void {
    this.coverage.add(`input ${role} ${input}`)
  }

  stepped(member: Member): void {
    const { id, life, role } = member
    const seen = this.#seen.get(id)
    if (seen !== undefined && seen.life === life && seen.role === role) return
    const before = this.before(member)
    this.#seen.set(id, { id, life, role })
    this.coverage.add(`state ${before}`)
    this.coverage.add(`state ${role}`)
    if (before !== role) this.coverage.add(`move ${before} ${role}`)
  }
}
