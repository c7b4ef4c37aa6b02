const minute = 60_000
const hour = 60 * minute
const day = 24 * hour

export interface Span {
  /** The two largest units, none of them zero, save for a span below one minute. */
  parts: { unit: 'day' | 'hour' | 'minute'; count: number }[]
  past: boolean
}

export function spanTo(time: string, now: number): Span {
  const left = Date.parse(time) - now
  const whole = Math.abs(left)
  const all: Span['parts'] = [
    { unit: 'day', count: Math.floor(whole / day) },
    { unit: 'hour', count: Math.floor((whole % day) / hour) },
    { unit: 'minute', count: Math.floor((whole % hour) / minute) },
  ]
  const first = all.findIndex((part) => part.count > 0)
  const parts = first < 0 ? all.slice(2) : all.slice(first, first + 2).filter((part) => part.count > 0)
  return { parts, past: left < 0 }
}

/** How near an expiry is: red below three days, amber below fifteen. */
export function urgency(time: string, now: number): 'bad' | 'warn' | 'calm' {
  const left = Date.parse(time) - now
  if (left < 3 * day) return 'bad'
  return left < 15 * day ? 'warn' : 'calm'
}
