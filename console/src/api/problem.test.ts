import { AxiosError, AxiosHeaders } from 'axios'
import { expect, it } from 'vitest'
import { faultOf } from './problem'

const failed = (status: number, data: unknown) => {
  const config = { headers: new AxiosHeaders() }
  return new AxiosError('x', undefined, config, undefined, { status, data, config, statusText: '', headers: {} })
}

it.each([
  [403, 'forbidden'],
  [404, 'missing'],
  [409, 'refused'],
  [429, 'busy'],
  [503, 'broken'],
])('names what status %i means', (status, kind) => {
  expect(faultOf(failed(status, {})).kind).toBe(kind)
})

it('keeps the sentence, the faults and the request id', () => {
  const body = { detail: 'not valid', errors: [{ location: 'body.name', message: 'too short' }], request_id: 'r1' }
  expect(faultOf(failed(422, body))).toEqual({ kind: 'refused', detail: 'not valid; too short', requestId: 'r1' })
})

it('knows a hub that does not answer, and a fault of its own', () => {
  expect(faultOf(new AxiosError('Network Error')).kind).toBe('unreachable')
  expect(faultOf(new Error('bug'))).toEqual({ kind: 'broken', detail: 'bug', requestId: '' })
})
