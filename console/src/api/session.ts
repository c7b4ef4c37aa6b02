// The access token lives in this module only, so that nothing on disk gives access. The refresh cookie is httpOnly.
import axios from 'axios'
import { ref, shallowRef } from 'vue'
import type { Session, User } from './types'

export const authUrl = '/api/v1/auth'

const user = shallowRef<User | null>(null)
const expired = ref(false)
let token: string | null = null
let refreshing: Promise<boolean> | null = null

/** The person who is logged in, null for none. */
export const currentUser = user
/** True after the hub ended a session that had been open in this tab. */
export const sessionExpired = expired

export const accessToken = (): string | null => token

export function openSession(session: Session): void {
  token = session.access_token
  user.value = session.user
  expired.value = false
}

export function closeSession(): void {
  token = null
  user.value = null
}

/**
 * Gets a new access token by the refresh cookie; false when the hub knows no session. Calls at the same time share
 * one request, and a lock keeps other tabs from using the same cookie, which the hub would take for theft.
 */
export function refreshSession(): Promise<boolean> {
  refreshing ??= locked(requestSession).finally(() => {
    refreshing = null
  })
  return refreshing
}

async function requestSession(): Promise<boolean> {
  try {
    const { data } = await axios.post<Session>(`${authUrl}/refresh`)
    openSession(data)
    return true
  } catch (error) {
    if (!axios.isAxiosError(error) || ![401, 403].includes(error.response?.status ?? 0)) throw error
    if (user.value) expired.value = true
    closeSession()
    return false
  }
}

// Locks exist in secure contexts only; without them the hub's short grace for a used cookie has to do.
function locked<T>(work: () => Promise<T>): Promise<T> {
  const locks = (navigator as { locks?: LockManager }).locks
  return locks ? locks.request('certferry.refresh', work) : work()
}
