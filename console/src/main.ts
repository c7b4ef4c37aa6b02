import 'element-plus/theme-chalk/base.css'
import 'element-plus/theme-chalk/dark/css-vars.css'
import 'element-plus/theme-chalk/el-button.css'
import 'element-plus/theme-chalk/el-input.css'
import 'element-plus/theme-chalk/el-overlay.css'
import 'element-plus/theme-chalk/el-dialog.css'
import './styles/base.css'
import './styles/parts.css'
import { QueryClient, VueQueryPlugin } from '@tanstack/vue-query'
import { createApp } from 'vue'
import { createWebHistory } from 'vue-router'
import { i18n, setLocale } from './i18n'
import AppRoot from './shell/AppRoot.vue'
import { makeRouter } from './shell/router'

const queryClient = new QueryClient({ defaultOptions: { queries: { retry: false, staleTime: 2_000 } } })
const router = makeRouter(createWebHistory())

await setLocale(document.documentElement.lang === 'zh-CN' ? 'zh-CN' : 'en')
createApp(AppRoot).use(i18n).use(router).use(VueQueryPlugin, { queryClient }).mount('#app')
