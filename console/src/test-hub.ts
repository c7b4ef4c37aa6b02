// A hub for tests: it answers by method and path, keeps the calls, and mounts a page as the console does.
import { QueryClient, VueQueryPlugin } from '@tanstack/vue-query'
import { flushPromises, mount } from '@vue/test-utils'
import axios, { AxiosError, AxiosHeaders, type AxiosResponse, type InternalAxiosRequestConfig } from 'axios'
import { vi } from 'vitest'
import { createMemoryHistory } from 'vue-router'
import { closeSession, openSession } from '@/api/session'
import { http } from '@/api/http'
import type { Certificate, Server, User } from '@/api/types'
import { i18n } from '@/i18n'
import AppRoot from '@/shell/AppRoot.vue'
import { makeRouter } from '@/shell/router'

export interface Call {
  method: string
  path: string
  params: Record<string, unknown>
  body: unknown
  token: string
}

type Answer = [status: number, body?: unknown]

export function fakeHub(answers: Record<string, Answer | ((call: Call) => Answer | Promise<Answer>)>) {
  const calls: Call[] = []
  const adapter = async (config: InternalAxiosRequestConfig): Promise<AxiosResponse> => {
    const call: Call = {
      method: (config.method ?? 'get').toUpperCase(),
      path: `${config.url?.startsWith('/api') ? '' : (config.baseURL ?? '')}${config.url ?? ''}`.replace('/api/v1', ''),
      params: (config.params ?? {}) as Record<string, unknown>,
      body: typeof config.data === 'string' ? (JSON.parse(config.data) as unknown) : config.data,
      token: config.headers.get('Authorization')?.toString() ?? '',
    }
    calls.push(call)
    const answer = answers[`${call.method} ${call.path}`]
    if (!answer) throw new AxiosError('Network Error', 'ERR_NETWORK', config)
    const [status, data] = typeof answer === 'function' ? await answer(call) : answer
    const response: AxiosResponse = { status, data, config, statusText: '', headers: new AxiosHeaders() }
    if (status >= 400) throw new AxiosError('refused', undefined, config, undefined, response)
    return response
  }
  http.defaults.adapter = adapter
  axios.defaults.adapter = adapter
  return { calls, count: (key: string) => calls.filter((call) => `${call.method} ${call.path}` === key).length }
}

export const session = (role: User['role'] = 'admin', token = 'first') => ({
  access_token: token,
  expires_at: '2026-01-01T00:00:00Z',
  user: { name: 'ada', role, created_at: '2026-01-01T00:00:00Z', disabled: false },
})

export async function visit(path: string, role: User['role'] | null = 'admin') {
  if (role) openSession(session(role))
  else closeSession()
  const router = makeRouter(createMemoryHistory())
  const queryClient = new QueryClient({ defaultOptions: { queries: { retry: false } } })
  await router.push(path)
  const page = mount(AppRoot, {
    attachTo: document.body,
    global: { plugins: [i18n, router, [VueQueryPlugin, { queryClient }]] },
  })
  await settle()
  return { page, router, queryClient }
}

export async function settle(): Promise<void> {
  for (let turn = 0; turn < 4; turn++) {
    await flushPromises()
    await vi.dynamicImportSettled()
  }
  await flushPromises()
}

export const certificate = (more: Partial<Certificate> = {}): Certificate => ({
  name: 'web',
  names: ['example.org', 'www.example.org'],
  issuer: 'ca',
  state: 'valid',
  paused: false,
  issued: {
    issuer: 'ca',
    leaf_sha256: 'aa11',
    spki_sha256: 'bb22',
    serial: '0123',
    not_before: '2026-01-01T00:00:00Z',
    not_after: '2099-01-01T00:00:00Z',
  },
  placed: [
    { certificate: 'web', server: 'edge-1', deployer: 'nginx', target: 'site', state: 'deployed' },
    {
      certificate: 'web',
      server: 'edge-2',
      deployer: 'nginx',
      target: 'site',
      state: 'failed',
      detail: 'nginx -t failed',
    },
  ],
  ...more,
})

export const server = (more: Partial<Server> = {}): Server => ({
  name: 'edge-1',
  state: 'approved',
  online: true,
  held: false,
  generation: 3,
  want_generation: 4,
  created_at: '2026-01-01T00:00:00Z',
  last_seen_at: '2026-01-01T00:00:00Z',
  fingerprint: 'f'.repeat(43),
  labels: { role: 'edge' },
  facts: { hostname: 'edge-1.example', os: 'Debian 12', agent_version: '1.0.0' },
  deployments: [],
  ...more,
})

export const history = {
  items: [
    {
      hash: 'c'.repeat(40),
      author: 'certferry',
      subject: 'web: renew',
      committed_at: '2026-01-02T00:00:00Z',
      generation: 2,
    },
    { hash: 'd'.repeat(40), author: 'certferry', subject: 'web: issue', committed_at: '2026-01-01T00:00:00Z' },
  ],
}
