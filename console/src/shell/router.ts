import { createRouter, type RouteLocationRaw, type Router, type RouterHistory } from 'vue-router'
import { getSetup } from '@/api/calls'
import { currentUser, refreshSession } from '@/api/session'
import AppShell from './AppShell.vue'

const routes = [
  {
    path: '/setup',
    name: 'setup',
    component: () => import('@/modules/account/SetupPage.vue'),
    meta: { open: true, title: 'setup.title' },
  },
  {
    path: '/login',
    name: 'login',
    component: () => import('@/modules/account/LoginPage.vue'),
    meta: { open: true, title: 'login.title' },
  },
  {
    path: '/unreachable',
    name: 'unreachable',
    component: () => import('./FaultPage.vue'),
    meta: { open: true, title: 'fault.unreachable' },
  },
  {
    path: '/',
    component: AppShell,
    children: [
      { path: '', redirect: { name: 'certificates' } },
      {
        path: 'certificates',
        name: 'certificates',
        component: () => import('@/modules/certificates/CertificatesPage.vue'),
        meta: { title: 'certificates.title' },
      },
      {
        path: 'certificates/:id',
        name: 'certificate',
        component: () => import('@/modules/certificates/CertificatePage.vue'),
        props: true,
        meta: { title: 'certificates.title' },
      },
      {
        path: 'servers',
        name: 'servers',
        component: () => import('@/modules/servers/ServersPage.vue'),
        meta: { title: 'servers.title' },
      },
      {
        path: 'servers/:name',
        name: 'server',
        component: () => import('@/modules/servers/ServerPage.vue'),
        props: true,
        meta: { title: 'servers.title' },
      },
      {
        path: 'credentials',
        name: 'credentials',
        component: () => import('@/modules/credentials/CredentialsPage.vue'),
        meta: { title: 'credentials.title' },
      },
    ],
  },
  { path: '/:rest(.*)*', redirect: '/' },
]

// A hub without an administrator leads to the setup, one without a session to the login.
async function entrance(name: unknown, next: string): Promise<RouteLocationRaw | true> {
  try {
    if ((await getSetup()).required) return name === 'setup' ? true : { name: 'setup' }
    if (currentUser.value || (await refreshSession())) return name === 'setup' || name === 'login' ? '/' : true
  } catch {
    return { name: 'unreachable' }
  }
  return name === 'login' ? true : { name: 'login', query: next === '/' ? {} : { next } }
}

export function makeRouter(history: RouterHistory): Router {
  const router = createRouter({ history, routes })
  router.beforeEach((to) => {
    if (to.name === 'unreachable' || (currentUser.value && !to.meta.open)) return true
    return entrance(to.name, to.fullPath)
  })
  return router
}
