import axios, { type InternalAxiosRequestConfig } from 'axios'
import { accessToken, authUrl, refreshSession } from './session'

export const http = axios.create({ baseURL: '/api/v1', timeout: 30_000 })

interface Tried extends InternalAxiosRequestConfig {
  tried?: boolean
}

http.interceptors.request.use((config) => {
  const token = accessToken()
  if (token) config.headers.set('Authorization', `Bearer ${token}`)
  return config
})

// A call that the hub refuses for its token gets a new one, once. The calls of the session itself do not.
http.interceptors.response.use(undefined, async (error: unknown) => {
  if (!axios.isAxiosError(error) || error.response?.status !== 401 || !error.config) throw error
  const config = error.config as Tried
  const own = `${config.baseURL ?? ''}${config.url ?? ''}`.startsWith(authUrl)
  if (config.tried || own || !(await refreshSession())) throw error
  config.tried = true
  return http.request(config)
})
