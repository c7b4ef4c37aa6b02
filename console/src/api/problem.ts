import axios from 'axios'
import type { Problem } from './types'

/** What a person needs of a failed call. `detail` is the hub's own sentence, empty where it gave none. */
export interface Fault {
  kind: 'unreachable' | 'forbidden' | 'missing' | 'busy' | 'refused' | 'broken'
  detail: string
  requestId: string
}

export function faultOf(error: unknown): Fault {
  if (!axios.isAxiosError<Partial<Problem> | undefined>(error)) {
    return { kind: 'broken', detail: error instanceof Error ? error.message : '', requestId: '' }
  }
  const body = error.response?.data
  const faults = body?.errors?.map((fault) => fault.message) ?? []
  return {
    kind: kindOf(error.response?.status),
    detail: [body?.detail, ...faults].filter(Boolean).join('; '),
    requestId: body?.request_id ?? '',
  }
}

function kindOf(status: number | undefined): Fault['kind'] {
  if (status === undefined) return 'unreachable'
  if (status === 403) return 'forbidden'
  if (status === 404) return 'missing'
  if (status === 429) return 'busy'
  return status >= 500 ? 'broken' : 'refused'
}
