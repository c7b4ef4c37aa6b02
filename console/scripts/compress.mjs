// Writes .br and .gz twins of what compresses well, and fails when the first load outgrows its budget.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

const dist = new URL('../dist/', import.meta.url).pathname
const budget = 160 * 1024
const sizes = new Map()

for (const name of readdirSync(dist, { recursive: true })) {
  if (!/\.(js|css|html|svg|json)$/.test(name)) continue
  const file = join(dist, name)
  const data = readFileSync(file)
  const br = brotliCompressSync(data, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } })
  sizes.set(name, br.length)
  if (data.length < 1024) continue
  writeFileSync(`${file}.br`, br)
  writeFileSync(`${file}.gz`, gzipSync(data, { level: 9 }))
}

const sum = (end) => [...sizes].filter(([name]) => name.endsWith(end)).reduce((total, [, size]) => total + size, 0)
const kib = (bytes) => `${(bytes / 1024).toFixed(1)} KiB`
console.log(`console: all JS ${kib(sum('.js'))}, all CSS ${kib(sum('.css'))} (brotli)`)
if (sum('.js') > budget) {
  console.error(`console: JS is larger than ${kib(budget)}`)
  process.exit(1)
}
