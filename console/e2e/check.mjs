// Walks through the console of a running hub in Chromium: setup or login, both lists, a detail of each, a dialog. Each
// view is seen in two languages, two themes and two widths, and must have no axe violation, no violation of the
// Content-Security-Policy, no script error and no sideways scrolling.
//
// CERTFERRY_URL, CERTFERRY_SETUP_CODE of a new hub (or CERTFERRY_USER and CERTFERRY_PASSWORD of a used one),
// CHROMIUM (default /usr/bin/chromium), SHOTS (a folder for screenshots).
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { AxeBuilder } from '@axe-core/playwright'
import { chromium } from 'playwright-core'

const base = process.env.CERTFERRY_URL
if (!base) {
  console.error('e2e: set CERTFERRY_URL and CERTFERRY_SETUP_CODE (certferry-hub demo prints both)')
  process.exit(2)
}
const code = process.env.CERTFERRY_SETUP_CODE
const user = process.env.CERTFERRY_USER ?? 'e2e-admin'
const password = process.env.CERTFERRY_PASSWORD ?? 'e2e-correct-horse-battery'
const shots = process.env.SHOTS
if (shots) mkdirSync(shots, { recursive: true })

const faults = []
let looks = 0
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
})
const context = await browser.newContext({ ignoreHTTPSErrors: true, locale: 'en-GB', reducedMotion: 'reduce' })
const page = await context.newPage()
page.on('pageerror', (error) => faults.push(`script: ${error.message}`))
page.on('console', (message) => {
  if (/Content.Security.Policy/i.test(message.text())) faults.push(`policy: ${message.text()}`)
})

async function look(name) {
  const { violations } = await new AxeBuilder({ page })
    .withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'])
    .analyze()
  for (const { id, nodes } of violations)
    faults.push(`axe: ${name}: ${id}: ${nodes.map((n) => n.html.slice(0, 160)).join(' | ')}`)
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
  if (over > 0) faults.push(`width: ${name} is ${over} px too wide`)
  if (shots) await page.screenshot({ path: join(shots, `${name}.png`) })
  looks++
}

const language = (lang) => page.locator(`.preferences button[lang="${lang}"]`)
const theme = () => page.locator('.preferences button').nth(1)

async function everyLook(name) {
  for (const width of [1440, 390]) {
    await page.setViewportSize({ width, height: 900 })
    for (const [next, lang] of [
      ['zh-CN', 'en'],
      ['en', 'zh'],
    ]) {
      await look(`${name}-${width}-${lang}-light`)
      await theme().click()
      await look(`${name}-${width}-${lang}-dark`)
      await theme().click()
      await language(next).click()
      await language(next).waitFor({ state: 'detached' })
    }
  }
  await page.setViewportSize({ width: 1440, height: 900 })
}

const field = (name) => page.locator(`input[name="${name}"]`)

try {
  await page.goto(base)
  await page.locator('h1').waitFor()
  if (code && page.url().endsWith('/setup')) {
    await everyLook('setup')
    await field('code').fill(code)
    await field('username').fill(user)
    await field('password').fill(password)
    await field('again').fill(password)
    await page.locator('button[type=submit]').click()
    await page.waitForURL('**/certificates')
    await page.getByRole('button', { name: 'Log out' }).click()
  }
  await page.waitForURL('**/login*')
  await everyLook('login')
  await field('username').fill(user)
  await field('password').fill(password)
  await page.locator('button[type=submit]').click()

  for (const list of ['certificates', 'servers']) {
    await page.locator(`.top nav a[href="/${list}"]`).click()
    await page.locator('.data tbody a').first().waitFor()
    await everyLook(list)
    await page.locator('.data tbody a').first().click()
    await page.locator('.history li').first().waitFor()
    await everyLook(`${list}-detail`)
    const back = page.locator('.history button').last()
    if (await back.count()) {
      await back.click()
      await page.getByRole('dialog').locator('input').first().waitFor()
      await look(`${list}-dialog-1440-en-light`)
      await page.keyboard.press('Escape')
      await page.getByRole('dialog').waitFor({ state: 'hidden' })
    }
  }

  // The page of credentials, its form and the page that checks an order.
  await page.locator('.top nav a[href="/credentials"]').click()
  await page.locator('.empty, .data').first().waitFor()
  await everyLook('credentials')
  await page.getByRole('button', { name: 'Add credential' }).click()
  await page.getByRole('dialog').locator('input').first().waitFor()
  await look('credentials-dialog-1440-en-light')
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'hidden' })
  await page.locator('.top nav a[href="/certificates"]').click()
  await page.locator('.data tbody a').first().click()
  await page.getByRole('button', { name: 'Check an order' }).click()
  await page.locator('#order').locator('xpath=ancestor::section').locator('table.data tbody tr').first().waitFor()
  await everyLook('preflight')
  await page.getByRole('button', { name: 'Revoke' }).click()
  await page.getByRole('dialog').locator('select').waitFor()
  await look('revoke-dialog-1440-en-light')
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'hidden' })

  // The session outlives a reload by its cookie, and the token is nowhere in the browser's storage.
  await page.reload()
  await page.locator('.history li').first().waitFor()
  const stored = await page.evaluate(() => JSON.stringify([localStorage, sessionStorage]) + document.cookie)
  if (/eyJ|token/i.test(stored)) faults.push(`storage: ${stored}`)
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.waitForURL('**/login*')
} catch (error) {
  faults.push(`walk: ${page.url()}: ${error.message}`)
  if (shots) await page.screenshot({ path: join(shots, 'fault.png') })
}
await browser.close()

for (const fault of new Set(faults)) console.error(fault)
console.log(`e2e: ${looks} looks, ${faults.length} faults`)
process.exit(faults.length ? 1 : 0)
