import { readonly, ref } from 'vue'

const now = ref(Date.now())
setInterval(() => {
  now.value = Date.now()
}, 15_000)

/** The time, renewed for all views together. */
export const useNow = () => readonly(now)
