import { useQueryClient } from '@tanstack/vue-query'
import { ref, shallowRef } from 'vue'
import { faultOf, type Fault } from '@/api/problem'

/** Something that a person does: one at a time, its fault kept for show, the data on the page renewed after it. */
export function useAction() {
  const client = useQueryClient()
  const busy = ref(false)
  const fault = shallowRef<Fault | null>(null)
  async function run(work: () => Promise<unknown>): Promise<boolean> {
    if (busy.value) return false
    busy.value = true
    fault.value = null
    try {
      await work()
      void client.invalidateQueries()
      return true
    } catch (error) {
      fault.value = faultOf(error)
      return false
    } finally {
      busy.value = false
    }
  }
  return { busy, fault, run }
}
