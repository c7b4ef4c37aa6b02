import { describe, expect, it } from 'vitest'
import { spanTo, urgency } from './countdown'

const now = Date.parse('2026-01-10T00:00:00Z')

describe('spanTo', () => {
  it.each([
    ['2026-01-11T06:30:00Z', 'day1 hour6', false],
    ['2026-01-10T05:30:20Z', 'hour5 minute30', false],
    ['2026-01-12T00:00:00Z', 'day2', false],
    ['2026-01-10T00:00:30Z', 'minute0', false],
    ['2026-01-09T18:00:00Z', 'hour6', true],
  ])('reads %s as %s', (time, want, past) => {
    const span = spanTo(time, now)
    expect(span.parts.map((part) => part.unit + String(part.count)).join(' ')).toBe(want)
    expect(span.past).toBe(past)
  })
})

it.each([
  ['2026-01-12T23:59:59Z', 'bad'],
  ['2026-01-13T00:00:00Z', 'warn'],
  ['2026-01-24T23:59:59Z', 'warn'],
  ['2026-01-25T00:00:00Z', 'calm'],
  ['2026-01-01T00:00:00Z', 'bad'],
])('finds %s %s', (time, want) => {
  expect(urgency(time, now)).toBe(want)
})
