import { createI18n } from 'vue-i18n'
import en from './en.json'

export type Locale = 'en' | 'zh-CN'

const formats = { exact: { dateStyle: 'medium', timeStyle: 'medium' } } as const

export const i18n = createI18n({
  legacy: false,
  locale: 'en',
  fallbackLocale: 'en',
  messages: { en },
  datetimeFormats: { en: formats, 'zh-CN': formats },
})

/** Loads a language if it is not there yet, and makes it the page's. */
export async function setLocale(locale: Locale): Promise<void> {
  if (!i18n.global.availableLocales.includes(locale) || locale === 'zh-CN') {
    i18n.global.setLocaleMessage(locale, locale === 'en' ? en : (await import('./zh-CN.json')).default)
  }
  i18n.global.locale.value = locale
  document.documentElement.lang = locale
}
