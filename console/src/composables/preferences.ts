import { ref } from 'vue'
import { setLocale, type Locale } from '@/i18n'

const dark = ref(document.documentElement.classList.contains('dark'))

function keep(key: string, value: string): void {
  try {
    localStorage.setItem(key, value)
  } catch {
    // Storage may be forbidden; the choice then lasts as long as the tab.
  }
}

export function usePreferences() {
  return {
    dark,
    toggleTheme: (): void => {
      dark.value = !dark.value
      document.documentElement.classList.toggle('dark', dark.value)
      keep('certferry.theme', dark.value ? 'dark' : 'light')
    },
    chooseLocale: async (locale: Locale): Promise<void> => {
      await setLocale(locale)
      keep('certferry.locale', locale)
    },
  }
}
