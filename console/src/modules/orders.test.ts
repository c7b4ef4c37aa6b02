import { afterEach, describe, expect, it } from 'vitest'
import { certificate, fakeHub, history, settle, visit } from '@/test-hub'

afterEach(() => {
  document.body.innerHTML = ''
})

const job = (more: object = {}) => ({
  id: 'j1',
  kind: 'issue' as const,
  certificate: 'web',
  actor: 'hub',
  state: 'waiting' as const,
  attempts: 2,
  phase: 'validate' as const,
  error: 'the CA could not reach port 80',
  next_step: 'Open port 80.',
  retry_at: '2099-01-01T00:00:00Z',
  created_at: '2026-01-01T00:00:00Z',
  updated_at: '2026-01-01T00:00:00Z',
  ...more,
})

const button = (name: string) => {
  const found = [...document.querySelectorAll<HTMLButtonElement>('button')].filter(
    (b) => b.textContent?.trim() === name,
  )
  return found[found.length - 1]
}
const field = (label: string): HTMLInputElement => {
  const of = [...document.querySelectorAll('label')].find((l) => l.textContent?.includes(label))
  return document.getElementById(of?.htmlFor ?? '') as HTMLInputElement
}
async function type(label: string, text: string): Promise<void> {
  const input = field(label)
  input.value = text
  input.dispatchEvent(new Event('input'))
  await settle()
}

describe('the order of a certificate', () => {
  const answers = (more: object = {}) => ({
    'GET /certificates/web': [200, certificate({ job: job(), key_custody: 'server', ...more })] as [number, unknown],
    'GET /certificates/web/history': [200, history] as [number, unknown],
    'GET /jobs/j1/log': [
      200,
      { items: [{ seq: 1, at: '2026-01-01T00:00:00Z', phase: 'dns', line: 'adding the TXT record' }] },
    ] as [number, unknown],
  })

  it('tells how far it is, what is wrong and what to do, with its log', async () => {
    fakeHub(answers())
    const { page } = await visit('/certificates/web', 'viewer')
    const text = page.text()
    for (const part of [
      'Waiting to retry',
      'could not reach port 80',
      'Open port 80.',
      'adding the TXT record',
      'never leaves it',
    ])
      expect(text).toContain(part)
    expect(button('Cancel order')).toBeUndefined()
    expect(button('Revoke')).toBeUndefined()
  })

  it('is cancelled and checked on demand', async () => {
    const hub = fakeHub({
      ...answers(),
      'POST /jobs/j1/cancel': [200, job({ state: 'cancelled' })],
      'POST /certificates/web/preflight': [
        200,
        {
          failed: true,
          issuer: 'le',
          findings: [
            {
              check: 'caa',
              object: 'example.org',
              state: 'failed',
              detail: 'forbids this CA',
              next: 'Change the record.',
            },
            { check: 'acme.sh', state: 'ok', detail: 'there' },
          ],
        },
      ],
    })
    const { page } = await visit('/certificates/web', 'operator')
    button('Check an order')?.click()
    await settle()
    expect(page.text()).toContain('An order would fail')
    expect(page.text()).toContain('Change the record.')
    button('Cancel order')?.click()
    await settle()
    button('Cancel order')?.click()
    await settle()
    expect(hub.count('POST /jobs/j1/cancel')).toBe(1)
  })

  it('is revoked by its typed name only', async () => {
    const hub = fakeHub({ ...answers(), 'POST /certificates/web/revoke': [200, certificate({ state: 'revoked' })] })
    await visit('/certificates/web', 'operator')
    button('Revoke')?.click()
    await settle()
    const dialog = document.querySelector('[role=dialog] form')
    dialog?.dispatchEvent(new Event('submit'))
    await settle()
    expect(hub.count('POST /certificates/web/revoke')).toBe(0)
    await type('Type web', 'web')
    dialog?.dispatchEvent(new Event('submit'))
    await settle()
    const sent = hub.calls.find((call) => call.path === '/certificates/web/revoke')?.body
    expect(sent).toEqual({ reason: 'superseded', serial: '0123' })
  })

  it('is paused with a reason', async () => {
    const hub = fakeHub({ ...answers(), 'POST /certificates/web/pause': [200, certificate({ paused: true })] })
    await visit('/certificates/web', 'operator')
    button('Pause renewal')?.click()
    await settle()
    await type('Reason', 'moving')
    document.querySelector('[role=dialog] form')?.dispatchEvent(new Event('submit'))
    await settle()
    expect(hub.calls.find((call) => call.path === '/certificates/web/pause')?.body).toEqual({ reason: 'moving' })
  })
})

describe('credentials', () => {
  const option = (name: string, secret: boolean, optional = false) => ({
    name,
    secret,
    optional,
    description: `is ${name}`,
  })
  const hubWith = (more: Parameters<typeof fakeHub>[0] = {}) =>
    fakeHub({
      'GET /credentials': [
        200,
        {
          items: [
            { name: 'cloud', provider: 'dns_cf', variables: ['CF_Token'], in_file: false, used_by: [] },
            { name: 'file', variables: ['A'], in_file: true, used_by: ['certificate web'] },
          ],
        },
      ],
      'GET /dns-providers': [
        200,
        {
          items: [
            {
              hook: 'dns_cf',
              title: 'Cloud',
              docs: 'https://help.example',
              options: [option('CF_Token', true), option('CF_Zone', false, true)],
              alternative: [option('CF_Key', true)],
            },
          ],
        },
      ],
      ...more,
    })

  it('lists them without values, and offers changes to administrators only', async () => {
    hubWith()
    const { page } = await visit('/credentials', 'viewer')
    expect(page.text()).toContain('CF_Token')
    expect(page.text()).toContain('certificate web')
    expect(button('Add credential')).toBeUndefined()
    expect(button('Test')).toBeUndefined()
  })

  it('makes a form of what the provider says', async () => {
    const hub = hubWith({ 'POST /credentials': [201, {}] })
    await visit('/credentials', 'admin')
    button('Add credential')?.click()
    await settle()
    await type('Name', 'mine')
    await type('Provider', 'dns_cf')
    expect(field('CF_Token').type).toBe('password')
    expect(document.body.textContent).toContain('optional')
    await type('CF_Token', 's3cret')
    document.querySelector('[role=dialog] form')?.dispatchEvent(new Event('submit'))
    await settle()
    const sent = hub.calls.find((call) => call.method === 'POST')?.body
    expect(sent).toEqual({ name: 'mine', provider: 'dns_cf', values: { CF_Token: 's3cret' } })
  })

  it('tests one and shows each step', async () => {
    const hub = hubWith({
      'POST /credentials/cloud/test': [202, { domain: 'a.example', running: true, ok: false, lines: [] }],
      'GET /credentials/cloud/test': [
        200,
        { domain: 'a.example', running: false, ok: true, lines: ['adding the TXT record', 'removing it'] },
      ],
    })
    await visit('/credentials', 'operator')
    button('Test')?.click()
    await settle()
    await type('Domain', 'a.example')
    document.querySelector('[role=dialog] form')?.dispatchEvent(new Event('submit'))
    await settle()
    expect(hub.calls.find((call) => call.method === 'POST')?.body).toEqual({ domain: 'a.example' })
    expect(document.body.textContent).toContain('removing it')
    expect(document.body.textContent).toContain('It works.')
  })

  it('removes one by its typed name', async () => {
    const hub = hubWith({ 'DELETE /credentials/cloud': [204] })
    await visit('/credentials', 'admin')
    button('Remove')?.click()
    await settle()
    await type('Type cloud', 'cloud')
    document.querySelector('[role=dialog] form')?.dispatchEvent(new Event('submit'))
    await settle()
    expect(hub.count('DELETE /credentials/cloud')).toBe(1)
  })
})
