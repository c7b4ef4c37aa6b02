import type { Server } from '@/api/types'

/** The state to show: a held server is approved too, but that it is held matters more. */
export const stateOf = (server: Server): string => (server.held ? 'held' : server.state)
