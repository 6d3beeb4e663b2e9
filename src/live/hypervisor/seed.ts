/**
 * The cloud-init seed (NoCloud): a FAT16 volume labelled CIDATA with `user-data` and `meta-data`. Written here,
 * so that no program for making images is needed and equal input gives equal bytes on every host.
 * Layout: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03.
 */
const SECTOR = 512
const SECTORS_PER_CLUSTER = 4
const CLUSTER = SECTOR * SECTORS_PER_CLUSTER
const RESERVED_SECTORS = 1
const ROOT_ENTRIES = 64
const ROOT_SECTORS = (ROOT_ENTRIES * 32) / SECTOR
/** FAT16 is told by a count of clusters from 4085 to 65524. */
const CLUSTERS = 4200
const FAT_SECTORS = Math.ceil(((CLUSTERS + 2) * 2) / SECTOR)
const TOTAL_SECTORS = RESERVED_SECTORS + 2 * FAT_SECTORS + ROOT_SECTORS + CLUSTERS * SECTORS_PER_CLUSTER
const CHAIN_END = 0xffff
const ATTRIBUTE = { volume: 0x08, longName: 0x0f, archive: 0x20 } as const
/** 1 January 1980: the bytes must not depend on the day. */
const DATE = (1 << 5) | 1

interface SeedFile {
  readonly longName: string
  /** Eight and three characters, padded. */
  readonly shortName: string
  readonly data: Buffer
}

const bootSector = (): Buffer => {
  const sector = Buffer.alloc(SECTOR)
  sector.set([0xeb, 0x3c, 0x90])
  sector.write("NOVACRON", 3, "latin1")
  sector.writeUInt16LE(SECTOR, 11)
  sector.writeUInt8(SECTORS_PER_CLUSTER, 13)
  sector.writeUInt16LE(RESERVED_SECTORS, 14)
  sector.writeUInt8(2, 16)
  sector.writeUInt16LE(ROOT_ENTRIES, 17)
  sector.writeUInt16LE(TOTAL_SECTORS, 19)
  sector.writeUInt8(0xf8, 21)
  sector.writeUInt16LE(FAT_SECTORS, 22)
  sector.writeUInt16LE(32, 24)
  sector.writeUInt16LE(2, 26)
  sector.writeUInt8(0x80, 36)
  sector.writeUInt8(0x29, 38)
  sector.writeUInt32LE(0x4e4f5641, 39)
  sector.write("CIDATA     FAT16   ", 43, "latin1")
  sector.writeUInt16LE(0xaa55, 510)
  return sector
}

const entry = (name: string, attribute: number, cluster: number, sizeBytes: number): Buffer => {
  const bytes = Buffer.alloc(32)
  bytes.write(name, 0, "latin1")
  bytes.writeUInt8(attribute, 11)
  bytes.writeUInt16LE(DATE, 24)
  bytes.writeUInt16LE(cluster, 26)
  bytes.writeUInt32LE(sizeBytes, 28)
  return bytes
}

/** The entry that gives a file of up to 13 characters its long name. */
const longNameEntry = (longName: string, shortName: string): Buffer => {
  const checksum = [...Buffer.from(shortName, "latin1")].reduce(
    (sum, byte) => (((sum & 1) << 7) + (sum >> 1) + byte) & 0xff,
    0
  )
  const bytes = Buffer.alloc(32)
  bytes.writeUInt8(0x41, 0)
  bytes.writeUInt8(ATTRIBUTE.longName, 11)
  bytes.writeUInt8(checksum, 13)
  const places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]
  const codes = [...Buffer.from(longName, "latin1"), 0]
  places.forEach((place, index) => bytes.writeUInt16LE(codes[index] ?? 0xffff, place))
  return bytes
}

/** The image's bytes. Both texts are at most 64 KiB of characters (see `CloudInit`), so that they always fit. */
export const seedImage = (userData: string, metaData: string): Buffer => {
  const image = Buffer.alloc(TOTAL_SECTORS * SECTOR)
  const files: ReadonlyArray<SeedFile> = [
    { longName: "user-data", shortName: "USER-D~1   ", data: Buffer.from(userData) },
    { longName: "meta-data", shortName: "META-D~1   ", data: Buffer.from(metaData) }
  ]
  const fat = Buffer.alloc(FAT_SECTORS * SECTOR)
  fat.writeUInt16LE(0xfff8, 0)
  fat.writeUInt16LE(CHAIN_END, 2)
  const rootAt = (RESERVED_SECTORS + 2 * FAT_SECTORS) * SECTOR
  const dataAt = rootAt + ROOT_SECTORS * SECTOR
  const root = [entry("CIDATA     ", ATTRIBUTE.volume, 0, 0)]
  let next = 2
  for (const file of files) {
    const count = Math.ceil(file.data.length / CLUSTER)
    const first = count === 0 ? 0 : next
    file.data.copy(image, dataAt + (next - 2) * CLUSTER)
    for (let index = 0; index < count; index += 1, next += 1) {
      fat.writeUInt16LE(index === count - 1 ? CHAIN_END : next + 1, next * 2)
    }
    root.push(longNameEntry(file.longName, file.shortName))
    root.push(entry(file.shortName, ATTRIBUTE.archive, first, file.data.length))
  }
  bootSector().copy(image, 0)
  fat.copy(image, RESERVED_SECTORS * SECTOR)
  fat.copy(image, (RESERVED_SECTORS + FAT_SECTORS) * SECTOR)
  Buffer.concat(root).copy(image, rootAt)
  return image
}
