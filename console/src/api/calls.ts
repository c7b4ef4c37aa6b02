// The hub's operations that the console uses, by the names of the API document.
import { http } from './http'
import { closeSession, openSession } from './session'
import type { Certificate, Commit, Job, Page, Server, Session, SetupState } from './types'

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
