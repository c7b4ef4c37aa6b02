import { beforeEach, describe, expect, it, vi } from 'vitest'
import { fakeHub, session } from '@/test-hub'
import { getCertificate, logIn, logOut } from './calls'
import { accessToken, closeSession, currentUser, openSession, refreshSession, sessionExpired } from './session'

const list = 'GET /certificates/web'
const refresh = 'POST /auth/refresh'

beforeEach(() => {
  closeSession()
  sessionExpired.value = false
  vi.unstubAllGlobals()
})

describe('a call with an old token', () => {
  const answers = {
    [list]: (call: { token: string }): [number, unknown] =>
      call.token === 'Bearer second' ? [200, { name: 'web' }] : [401, {}],
    [refresh]: [200, session('admin', 'second')] as [number, unknown],
  }

  it('gets a new token and is sent again', async () => {
    openSession(session())
    const hub = fakeHub(answers)
    expect(await getCertificate('web')).toEqual({ name: 'web' })
    expect(hub.calls.map((call) => call.token)).toEqual(['Bearer first', '', 'Bearer second'])
  })

  it('shares one refresh with the calls beside it', async () => {
    openSession(session())
    const hub = fakeHub(answers)
    await Promise.all([getCertificate('web'), getCertificate('web'), getCertificate('web')])
    expect(hub.count(refresh)).toBe(1)
  })

  it('is sent again once only', async () => {
    openSession(session())
    const hub = fakeHub({ [list]: [401], [refresh]: [200, session()] })
    await expect(getCertificate('web')).rejects.toThrow()
    expect(hub.count(list)).toBe(2)
  })

  it('ends the session when the cookie is refused', async () => {
    openSession(session())
    fakeHub({ [list]: [401], [refresh]: [401] })
    await expect(getCertificate('web')).rejects.toThrow()
    expect(currentUser.value).toBeNull()
    expect(sessionExpired.value).toBe(true)
  })

  it('keeps the session when the hub is away', async () => {
    openSession(session())
    fakeHub({ [list]: [401] })
    await expect(getCertificate('web')).rejects.toThrow('Network Error')
    expect(currentUser.value?.name).toBe('ada')
  })
})

it('takes a lock over all tabs while it refreshes', async () => {
  const request = vi.fn((_name: string, work: () => Promise<boolean>) => work())
  vi.stubGlobal('navigator', { locks: { request } })
  fakeHub({ [refresh]: [200, session('viewer', 'second')] })
  expect(await refreshSession()).toBe(true)
  expect(request).toHaveBeenCalledOnce()
  expect(accessToken()).toBe('second')
})

it('does not refresh for a wrong password', async () => {
  const hub = fakeHub({ 'POST /auth/login': [401, { detail: 'wrong' }], [refresh]: [200, session()] })
  await expect(logIn('ada', 'wrong')).rejects.toThrow()
  expect(hub.count(refresh)).toBe(0)
})

it('forgets the token at the logout', async () => {
  openSession(session())
  fakeHub({ 'POST /auth/logout': [204] })
  await logOut()
  expect(accessToken()).toBeNull()
})
