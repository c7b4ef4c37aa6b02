import { readFileSync } from 'node:fs'
import { mount } from '@vue/test-utils'
import { expect, it } from 'vitest'
import { i18n } from '@/i18n'
import en from '@/i18n/en.json'
import { knownStates, lookOf } from './chips'
import StatusChip from './StatusChip.vue'

interface Document {
  components: { schemas: Record<string, { properties: { state?: { enum: string[] } } }> }
}
const document = JSON.parse(readFileSync('../docs/reference/openapi.json', 'utf8')) as Document

it.each(['Certificate', 'Server', 'Deployment'])('has a look for each state of a %s', (schema) => {
  const states = document.components.schemas[schema]?.properties.state?.enum ?? []
  expect(states).not.toEqual([])
  for (const state of states) expect(knownStates).toContain(state)
})

it('has a word for each look', () => {
  expect(Object.keys(en.state).sort()).toEqual([...knownStates].sort())
})

it('tells a state by word and icon, not by colour alone', () => {
  const chip = mount(StatusChip, { props: { state: 'rolled_back' }, global: { plugins: [i18n] } })
  expect(chip.text()).toBe('Rolled back')
  expect(chip.find('svg[aria-hidden=true]').exists()).toBe(true)
})

it('shows a state that it does not know as it is', () => {
  expect(lookOf('novel').tone).toBe('quiet')
  const chip = mount(StatusChip, { props: { state: 'novel' }, global: { plugins: [i18n] } })
  expect(chip.text()).toBe('novel')
})
