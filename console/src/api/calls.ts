// The hub's operations that the console uses, by the names of the API document.
import { http } from './http'
import { closeSession, openSession } from './session'
import type {
  Certificate,
  Commit,
  Credential,
  CredentialTestResult,
  Job,
  JobLine,
  Page,
  PreflightReport,
  Provider,
  RevokeReason,
  Server,
  Session,
  SetupState,
} from './types'

export interface ListQuery {
  q?: string
  after?: string
}

const pageSize = 50
const part = encodeURIComponent

const get = async <T>(url: string, params?: object, signal?: AbortSignal): Promise<T> =>
  (await http.get<T>(url, { params, signal })).data
const post = async <T>(url: string, body?: object): Promise<T> => (await http.post<T>(url, body)).data
const paged = (query: ListQuery) => ({ q: query.q || undefined, after: query.after || undefined, limit: pageSize })

export const getSetup = () => get<SetupState>('/auth/setup')

export async function setUp(code: string, name: string, password: string): Promise<void> {
  openSession(await post<Session>('/auth/setup', { code, name, password }))
}

export async function logIn(name: string, password: string): Promise<void> {
  openSession(await post<Session>('/auth/login', { name, password }))
}

export async function logOut(): Promise<void> {
  await post('/auth/logout')
  closeSession()
}

export const listCertificates = (query: ListQuery, signal?: AbortSignal) =>
  get<Page<Certificate>>('/certificates', paged(query), signal)
export const getCertificate = (id: string, signal?: AbortSignal) =>
  get<Certificate>(`/certificates/${part(id)}`, undefined, signal)
export const certificateHistory = (id: string, query: ListQuery, signal?: AbortSignal) =>
  get<Page<Commit>>(`/certificates/${part(id)}/history`, paged(query), signal)
export const renewCertificate = (id: string, reason: string) => post<Job>(`/certificates/${part(id)}/renew`, { reason })
export const rollBackCertificate = (id: string, commit: string, reason: string) =>
  post<Certificate>(`/certificates/${part(id)}/rollback`, { commit, reason })
export const resumeCertificate = (id: string) => post<Certificate>(`/certificates/${part(id)}/resume`)
export const pauseCertificate = (id: string, reason: string) =>
  post<Certificate>(`/certificates/${part(id)}/pause`, { reason })
export const revokeCertificate = (id: string, reason: RevokeReason, serial: string) =>
  post<Certificate>(`/certificates/${part(id)}/revoke`, { reason, serial })
export const preflightCertificate = (id: string) => post<PreflightReport>(`/certificates/${part(id)}/preflight`)

export const jobLog = (id: string, signal?: AbortSignal) =>
  get<Page<JobLine>>(`/jobs/${part(id)}/log`, { limit: 200 }, signal)
export const cancelJob = (id: string) => post<Job>(`/jobs/${part(id)}/cancel`)

export const listCredentials = (query: ListQuery, signal?: AbortSignal) =>
  get<Page<Credential>>('/credentials', paged(query), signal)
export const createCredential = (name: string, provider: string, values: Record<string, string>) =>
  post<Credential>('/credentials', { name, provider, values })
export async function deleteCredential(name: string): Promise<void> {
  await http.delete(`/credentials/${part(name)}`)
}
export const testCredential = (name: string, domain: string) =>
  post<CredentialTestResult>(`/credentials/${part(name)}/test`, { domain })
export const credentialTest = (name: string, signal?: AbortSignal) =>
  get<CredentialTestResult>(`/credentials/${part(name)}/test`, undefined, signal)

/** All providers, whose forms are small. */
export async function listProviders(signal?: AbortSignal): Promise<Provider[]> {
  const all: Provider[] = []
  for (let after: string | undefined = ''; after !== undefined;) {
    const page: Page<Provider> = await get('/dns-providers', { after: after || undefined, limit: 200 }, signal)
    all.push(...page.items)
    after = page.next || undefined
  }
  return all
}

export const listServers = (query: ListQuery, signal?: AbortSignal) =>
  get<Page<Server>>('/servers', paged(query), signal)
export const getServer = (name: string, signal?: AbortSignal) =>
  get<Server>(`/servers/${part(name)}`, undefined, signal)
export const serverHistory = (name: string, query: ListQuery, signal?: AbortSignal) =>
  get<Page<Commit>>(`/servers/${part(name)}/history`, paged(query), signal)
export const approveServer = (name: string, fingerprint: string) =>
  post<Server>(`/servers/${part(name)}/approve`, { fingerprint })
export const rollBackServer = (name: string, commit: string, reason: string) =>
  post<Server>(`/servers/${part(name)}/rollback`, { commit, reason })
export const resumeServer = (name: string) => post<Server>(`/servers/${part(name)}/resume`)
