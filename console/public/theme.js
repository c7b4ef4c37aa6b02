// Sets the theme and the language before the first paint. A file of its own, as the hub's policy forbids inline script.
;(function () {
  var root = document.documentElement
  var theme = null
  var locale = null
  try {
    theme = localStorage.getItem('certferry.theme')
    locale = localStorage.getItem('certferry.locale')
  } catch {
    // Storage may be forbidden; the system's choice then stands.
  }
  var dark = theme ? theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
  root.classList.toggle('dark', dark)
  root.lang = locale || (/^zh/i.test(navigator.language) ? 'zh-CN' : 'en')
})()
