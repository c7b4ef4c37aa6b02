import { keepPreviousData, useQuery } from '@tanstack/vue-query'
import { computed } from 'vue'
import { useRoute, useRouter } from 'vue-router'
import type { ListQuery } from '@/api/calls'
import type { Page } from '@/api/types'

export const pollInterval = 5_000

/** A list whose search and page stand in the URL, so that a link shows what its sender saw. */
export function usePaged<T>(key: string, fetch: (query: ListQuery, signal: AbortSignal) => Promise<Page<T>>) {
  const route = useRoute()
  const router = useRouter()
  const text = (value: unknown) => (typeof value === 'string' ? value : '')
  const search = computed(() => text(route.query.q))
  const after = computed(() => text(route.query.after))
  const query = useQuery({
    queryKey: [key, search, after],
    queryFn: ({ signal }) => fetch({ q: search.value, after: after.value }, signal),
    refetchInterval: pollInterval,
    placeholderData: keepPreviousData,
  })
  return {
    query,
    search,
    after,
    items: computed(() => query.data.value?.items ?? []),
    next: computed(() => query.data.value?.next ?? ''),
    searchFor: (q: string) => router.replace({ query: q ? { q } : {} }),
    goTo: (key: string) => router.push({ query: { ...route.query, after: key || undefined } }),
  }
}
