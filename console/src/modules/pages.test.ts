import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { sessionExpired } from '@/api/session'
import { certificate, fakeHub, history, server, session, settle, visit } from '@/test-hub'
import { localPath } from './account/localPath'

const setup = (required: boolean): [number, unknown] => [200, { required }]

beforeEach(() => {
  sessionExpired.value = false
})
afterEach(() => {
  vi.useRealTimers()
  document.body.innerHTML = ''
})

describe('the entrance', () => {
  it('leads to the setup of a new hub, which sends the code', async () => {
    const hub = fakeHub({
      'GET /auth/setup': setup(true),
      'POST /auth/setup': [200, session()],
      'GET /certificates': [200, { items: [] }],
    })
    const { page, router } = await visit('/servers', null)
    expect(router.currentRoute.value.name).toBe('setup')
    const [code, name, password, again] = page.findAll('input')
    await code?.setValue('1234')
    await name?.setValue('ada')
    await password?.setValue('correct horse battery')
    await again?.setValue('other')
    await page.find('form').trigger('submit')
    expect(page.text()).toContain('The passwords differ.')
    expect(hub.count('POST /auth/setup')).toBe(0)
    await again?.setValue('correct horse battery')
    await page.find('form').trigger('submit')
    await settle()
    const body = hub.calls.find((call) => call.method === 'POST' && call.path === '/auth/setup')?.body
    expect(body).toEqual({ code: '1234', name: 'ada', password: 'correct horse battery' })
    expect(router.currentRoute.value.name).toBe('certificates')
  })

  it('leads to the login and back to the page that was asked for', async () => {
    let right = false
    fakeHub({
      'GET /auth/setup': setup(false),
      'POST /auth/refresh': [401],
      'POST /auth/login': () =>
        right ? [200, session()] : [401, { detail: 'wrong name or password', request_id: 'r7' }],
      'GET /servers': [200, { items: [server()] }],
    })
    const { page, router } = await visit('/servers?q=edge', null)
    expect(router.currentRoute.value.query.next).toBe('/servers?q=edge')
    await page.find('form').trigger('submit')
    await settle()
    expect(page.find('[role=alert]').text()).toContain('wrong name or password')
    expect(page.find('[role=alert]').text()).toContain('r7')
    right = true
    await page.find('form').trigger('submit')
    await settle()
    expect(router.currentRoute.value.fullPath).toBe('/servers?q=edge')
  })

  it('opens by the cookie, and shows a hub that is away', async () => {
    fakeHub({
      'GET /auth/setup': setup(false),
      'POST /auth/refresh': [200, session()],
      'GET /certificates': [200, { items: [] }],
    })
    expect((await visit('/', null)).router.currentRoute.value.name).toBe('certificates')
    fakeHub({})
    const { page } = await visit('/', null)
    expect(page.text()).toContain('The hub cannot be reached')
  })

  it('goes back to no other site', () => {
    for (const bad of ['https://evil.example', '//evil.example', '/\\evil.example', undefined]) {
      expect(localPath(bad)).toBe('/')
    }
    expect(localPath('/servers')).toBe('/servers')
  })
})

describe('the lists', () => {
  it('show certificates with state, issuer, expiry and servers', async () => {
    fakeHub({ 'GET /certificates': [200, { items: [certificate(), certificate({ name: 'new', issued: undefined })] }] })
    const { page } = await visit('/certificates')
    const row = page.findAll('tbody tr')[0]?.text() ?? ''
    for (const part of ['web', 'Valid', 'example.org, www.example.org', 'ca', '1/2']) expect(row).toContain(part)
    expect(page.findAll('tbody tr')[1]?.text()).toContain('Never')
  })

  it('keep search and page in the URL', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const hub = fakeHub({ 'GET /servers': [200, { items: [server({ held: true, online: false })], next: 'k2' }] })
    const { page, router } = await visit('/servers')
    expect(page.text()).toContain('Held')
    expect(page.text()).toContain('Offline')
    expect(page.text()).toContain('3/4')
    await page.find('input[type=search]').setValue('edge')
    await vi.advanceTimersByTimeAsync(300)
    await settle()
    expect(router.currentRoute.value.query).toEqual({ q: 'edge' })
    await page.findAll('.pager button')[1]?.trigger('click')
    await settle()
    expect(router.currentRoute.value.query).toEqual({ q: 'edge', after: 'k2' })
    expect(hub.calls.at(-1)?.params).toMatchObject({ q: 'edge', after: 'k2' })
  })

  it('say what to do when they are empty or match nothing', async () => {
    fakeHub({ 'GET /certificates': [200, { items: [] }], 'GET /servers': [200, { items: [] }] })
    expect((await visit('/certificates')).page.text()).toContain('certferry certificate add')
    expect((await visit('/servers?q=zzz')).page.text()).toContain('Nothing matches “zzz”')
  })

  it('show a fault with its request, and keep old data when a later poll fails', async () => {
    let down = true
    fakeHub({
      'GET /servers': () => (down ? [503, { detail: 'busy', request_id: 'r9' }] : [200, { items: [server()] }]),
    })
    const { page, queryClient } = await visit('/servers')
    expect(page.find('[role=alert]').text()).toContain('r9')
    down = false
    await page.find('[role=alert] button').trigger('click')
    await settle()
    expect(page.find('tbody').text()).toContain('edge-1')
    down = true
    await queryClient.refetchQueries()
    await settle()
    expect(page.find('tbody').text()).toContain('edge-1')
    expect(page.text()).toContain('Reconnecting')
  })
})

describe('the details', () => {
  const answers = {
    'GET /certificates/web': [200, certificate({ paused: true, paused_reason: 'audit' })] as [number, unknown],
    'GET /certificates/web/history': [200, history] as [number, unknown],
    'POST /certificates/web/rollback': [200, certificate()] as [number, unknown],
    'POST /certificates/web/renew': [409, { detail: 'already renewing', request_id: 'r3' }] as [number, unknown],
    'GET /servers/edge-1': [200, server()] as [number, unknown],
    'GET /servers/edge-1/history': [200, history] as [number, unknown],
  }
  const button = (text: string) =>
    [...document.querySelectorAll('button')].filter((item) => item.textContent.trim() === text)

  it('show a viewer everything and let him change nothing', async () => {
    fakeHub(answers)
    const { page } = await visit('/certificates/web', 'viewer')
    for (const part of ['aa11', 'edge-2', 'nginx -t failed', 'web: renew', 'audit']) expect(page.text()).toContain(part)
    for (const act of ['Renew now', 'Resume renewal', 'Roll back']) expect(button(act)).toEqual([])
  })

  it('roll back to a commit once the name is typed', async () => {
    const hub = fakeHub(answers)
    await visit('/certificates/web', 'operator')
    expect(button('Roll back')).toHaveLength(1)
    button('Roll back')[0]?.click()
    await settle()
    const dialog = document.querySelector('[role=dialog] form')
    const [reason, name] = dialog?.querySelectorAll('input') ?? []
    const go = button('Roll back').at(-1)
    expect(go?.disabled).toBe(true)
    for (const [input, text] of [
      [reason, 'wrong chain'],
      [name, 'web'],
    ] as const) {
      if (input) input.value = text
      input?.dispatchEvent(new Event('input'))
    }
    await settle()
    expect(go?.disabled, dialog?.outerHTML).toBe(false)
    dialog?.dispatchEvent(new Event('submit'))
    await settle()
    expect(hub.calls.find((call) => call.path.endsWith('/rollback'))?.body).toEqual({
      commit: 'd'.repeat(40),
      reason: 'wrong chain',
    })
  })

  it('show why the hub refused to renew', async () => {
    fakeHub(answers)
    await visit('/certificates/web')
    button('Renew now')[0]?.click()
    await settle()
    document.querySelector('[role=dialog] form')?.dispatchEvent(new Event('submit'))
    await settle()
    expect(document.querySelector('[role=dialog] [role=alert]')?.textContent).toContain('already renewing')
  })

  it('approve a pending server by its typed fingerprint', async () => {
    const hub = fakeHub({
      ...answers,
      'GET /servers/edge-1': [200, server({ state: 'pending', fingerprint: 'secret-of-the-machine' })],
      'POST /servers/edge-1/approve': [200, server()],
    })
    const { page } = await visit('/servers/edge-1')
    expect(page.text()).not.toContain('secret-of-the-machine')
    await page.find('form input').setValue('SHA256:abc ')
    await page.find('form').trigger('submit')
    await settle()
    expect(hub.calls.find((call) => call.path.endsWith('/approve'))?.body).toEqual({ fingerprint: 'SHA256:abc' })
  })

  it('resume a held server', async () => {
    const hold = { by: 'ada', commit: 'd'.repeat(40), reason: 'test', since: '2026-01-01T00:00:00Z' }
    const hub = fakeHub({
      ...answers,
      'GET /servers/edge-1': [200, server({ held: true, hold })],
      'POST /servers/edge-1/resume': [200, server()],
    })
    const { page } = await visit('/servers/edge-1')
    expect(page.text()).toContain('Held by ada at commit dddddddddd.')
    button('Resume')[0]?.click()
    await settle()
    document.querySelector('[role=dialog] form')?.dispatchEvent(new Event('submit'))
    await settle()
    expect(hub.count('POST /servers/edge-1/resume')).toBe(1)
  })

  it('say that a server does not exist', async () => {
    fakeHub({ 'GET /servers/nope': [404, { request_id: 'r5' }] })
    expect((await visit('/servers/nope')).page.find('[role=alert]').text()).toContain('does not exist')
  })
})

describe('the shell', () => {
  it('changes theme and language, and logs out', async () => {
    const hub = fakeHub({
      'GET /auth/setup': setup(false),
      'POST /auth/refresh': [401],
      'POST /auth/logout': [204],
      'GET /servers': [200, { items: [] }],
    })
    const { page, router } = await visit('/servers')
    await page.find('[aria-label="Dark theme"]').trigger('click')
    expect(document.documentElement.classList.contains('dark')).toBe(true)
    await page.find('button[lang=zh-CN]').trigger('click')
    await settle()
    expect(page.find('h1').text()).toBe('服务器')
    await page.find('button[lang=en]').trigger('click')
    await settle()
    await page.find('[aria-label="Log out"]').trigger('click')
    await settle()
    expect(hub.count('POST /auth/logout')).toBe(1)
    expect(router.currentRoute.value.name).toBe('login')
  })

  it('goes to the login when the hub ends the session', async () => {
    fakeHub({ 'GET /auth/setup': setup(false), 'POST /auth/refresh': [401], 'GET /servers': [401] })
    const { page, router } = await visit('/servers')
    await settle()
    expect(router.currentRoute.value.name).toBe('login')
    expect(page.text()).toContain('Your session has ended')
  })
})
