import { computed } from 'vue'
import { currentUser } from '@/api/session'

/** Whether the person may change things; the hub decides again at each call. */
export const useMayChange = () => computed(() => ['operator', 'admin'].includes(currentUser.value?.role ?? ''))

export const useIsAdmin = () => computed(() => currentUser.value?.role === 'admin')
