import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { i18n, setLocale } from '.'

type Tree = { [key: string]: string | Tree }
const read = (name: string) => JSON.parse(readFileSync(`src/i18n/${name}.json`, 'utf8')) as Tree

function flat(tree: Tree, prefix = ''): Map<string, string> {
  const out = new Map<string, string>()
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value === 'string') out.set(prefix + key, value)
    else for (const [name, text] of flat(value, `${prefix}${key}.`)) out.set(name, text)
  }
  return out
}

const en = flat(read('en'))
const zh = flat(read('zh-CN'))
const places = (text = '') => (text.match(/\{\w+\}/g) ?? []).sort()
const source = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .filter((name) => /\.(vue|ts)$/.test(name) && !/test|schema/.test(name))
  .map((name) => readFileSync(join('src', name), 'utf8'))
  .join('\n')
const fixed = new Set(
  [...source.matchAll(/\bt\(\s*'([\w.]+)'/g), ...source.matchAll(/title: '([\w.]+)'/g)].map((m) => m[1]),
)
const open = new Set([...source.matchAll(/\bt\(\s*`([\w.]+)\.\$\{/g)].map((m) => m[1]))

it('has the same keys in both languages, none empty', () => {
  expect([...zh.keys()].sort()).toEqual([...en.keys()].sort())
  expect([...en.values(), ...zh.values()].filter((text) => !text.trim())).toEqual([])
})

it('has the same places in both languages', () => {
  for (const [key, text] of en) expect(places(zh.get(key)), key).toEqual(places(text))
})

it('has each key that the source names', () => {
  expect(fixed.size).toBeGreaterThan(50)
  expect([...fixed].filter((key) => !en.has(key ?? ''))).toEqual([])
})

it('holds no key that nothing uses', () => {
  const used = (key: string) => fixed.has(key) || [...open].some((group) => key.startsWith(`${group}.`))
  expect([...en.keys()].filter((key) => !used(key))).toEqual([])
})

it('holds no text outside of the messages', () => {
  const templates = (source.match(/<template>[\s\S]*?<\/template>\n/g)?.join('\n') ?? '').replace(/="[^"]*"/g, '')
  const texts = templates.match(/>\s*[A-Za-z]{3,}[^<{]*</g) ?? []
  expect(texts.filter((text) => !text.includes('Certferry'))).toEqual([])
})

it('changes the language of the page', async () => {
  await setLocale('zh-CN')
  expect(i18n.global.t('certificates.title')).toBe('证书')
  expect(document.documentElement.lang).toBe('zh-CN')
  await setLocale('en')
  expect(i18n.global.t('certificates.title')).toBe('Certificates')
})
