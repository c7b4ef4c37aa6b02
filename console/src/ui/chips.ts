// One map from a state to its look. A state is never told by colour alone: each has an icon and a word too.
import { Ban, CircleAlert, CircleCheck, CircleX, Clock, Pause, RefreshCw, Undo2, Unplug } from '@lucide/vue'
import type { Component } from 'vue'

export type Tone = 'good' | 'warn' | 'bad' | 'busy' | 'quiet'

export interface Look {
  tone: Tone
  icon: Component
}

const looks: Record<string, Look> = {
  valid: { tone: 'good', icon: CircleCheck },
  deployed: { tone: 'good', icon: CircleCheck },
  approved: { tone: 'good', icon: CircleCheck },
  online: { tone: 'good', icon: CircleCheck },
  ok: { tone: 'good', icon: CircleCheck },
  warning: { tone: 'warn', icon: CircleAlert },
  skipped: { tone: 'quiet', icon: Clock },
  expiring: { tone: 'warn', icon: Clock },
  held: { tone: 'warn', icon: Pause },
  refused: { tone: 'warn', icon: CircleAlert },
  expired: { tone: 'bad', icon: CircleX },
  revoked: { tone: 'bad', icon: Ban },
  failed: { tone: 'bad', icon: CircleX },
  offline: { tone: 'bad', icon: Unplug },
  renewing: { tone: 'busy', icon: RefreshCw },
  pending: { tone: 'busy', icon: Clock },
  paused: { tone: 'quiet', icon: Pause },
  rolled_back: { tone: 'quiet', icon: Undo2 },
  disabled: { tone: 'quiet', icon: CircleX },
}

const unknown: Look = { tone: 'quiet', icon: CircleAlert }

export const knownStates = Object.keys(looks)
export const lookOf = (state: string): Look => looks[state] ?? unknown
