import { fileURLToPath } from 'node:url'
import vueI18n from '@intlify/unplugin-vue-i18n/vite'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  plugins: [vue(), vueI18n({ include: here('./src/i18n/*.json'), runtimeOnly: true, dropMessageCompiler: true })],
  resolve: { alias: { '@': here('./src') } },
  // The hub's Content-Security-Policy allows no data: font and no inline script.
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 700 },
  server: { proxy: { '/api': process.env.CERTFERRY_URL ?? 'http://127.0.0.1:8080' } },
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.ts'],
    setupFiles: ['src/test-setup.ts'],
    server: { deps: { inline: ['element-plus'] } },
    coverage: {
      provider: 'v8',
      include: ['src/**/*.{ts,vue}'],
      exclude: ['src/**/*.test.ts', 'src/test-*.ts', 'src/api/schema.d.ts', 'src/main.ts'],
      reportsDirectory: '../coverage/console',
      reporter: ['text-summary', 'lcovonly'],
      thresholds: { statements: 70, lines: 70 },
    },
  },
})
