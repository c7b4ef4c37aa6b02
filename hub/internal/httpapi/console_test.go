package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func consoleFiles() fstest.MapFS {
	return fstest.MapFS{
		"index.html":              {Data: []byte("<!doctype html>page")},
		"index.html.gz":           {Data: []byte("gzipped page")},
		"theme.js":                {Data: []byte("theme")},
		"favicon.svg":             {Data: []byte("<svg/>")},
		"odd.bin":                 {Data: []byte("bytes")},
		"assets/app-3f2a1b.js":    {Data: []byte("script")},
		"assets/app-3f2a1b.js.br": {Data: []byte("small script")},
	}
}

func TestConsoleFiles(t *testing.T) {
	t.Parallel()
	site, err := newSite(consoleFiles())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path, accepts              string
		status                     int
		body, kind, cache, encoded string
	}{
		{"/", "", 200, "page", "text/html", "no-cache", ""},
		{"/", "gzip, br", 200, "gzipped page", "text/html", "no-cache", "gzip"},
		{"/servers/web-1.example.com", "", 200, "page", "text/html", "no-cache", ""},
		{"/theme.js", "", 200, "theme", "text/javascript", "no-cache", ""},
		{"/favicon.svg", "", 200, "<svg/>", "image/svg+xml", "no-cache", ""},
		{"/odd.bin", "", 200, "bytes", "application/octet-stream", "no-cache", ""},
		{"/assets/app-3f2a1b.js", "", 200, "script", "text/javascript", "immutable", ""},
		{"/assets/app-3f2a1b.js", "gzip;q=1, BR;q=0.5", 200, "small script", "text/javascript", "immutable", "br"},
		{"/assets/app-3f2a1b.js", "br;q=0", 200, "script", "text/javascript", "immutable", ""},
		{"/assets/app-3f2a1b.js", "br; q=0.0", 200, "script", "text/javascript", "immutable", ""},
		{"/assets/app-3f2a1b.js", "br;q=many", 200, "small script", "text/javascript", "immutable", "br"},
		{"/assets/gone.js", "", 404, "nothing here", "application/problem+json", "no-store", ""},
		{"/assets/", "", 404, "nothing here", "application/problem+json", "no-store", ""},
		{"/assets/../../etc/passwd", "", 200, "page", "text/html", "no-cache", ""},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = tc.path
		if tc.accepts != "" {
			r.Header.Set("Accept-Encoding", tc.accepts)
		}
		w := httptest.NewRecorder()
		site.ServeHTTP(w, r)
		h := w.Header()
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.body) || !strings.HasPrefix(h.Get("Content-Type"), tc.kind) ||
			!strings.Contains(h.Get("Cache-Control"), tc.cache) || h.Get("Content-Encoding") != tc.encoded {
			t.Errorf("%s (%s): %d %q %v", tc.path, tc.accepts, w.Code, w.Body, h)
		}
		if tc.status == 200 && (h.Get("Content-Security-Policy") != consolePolicy || h.Get("Etag") == "") {
			t.Errorf("%s: policy %q, tag %q", tc.path, h.Get("Content-Security-Policy"), h.Get("Etag"))
		}
	}
}

func TestConsoleIsNotSentTwice(t *testing.T) {
	t.Parallel()
	site, err := newSite(consoleFiles())
	if err != nil {
		t.Fatal(err)
	}
	first := httptest.NewRecorder()
	site.ServeHTTP(first, httptest.NewRequest(http.MethodGet, "/", nil))
	r := httptest.NewRequest(http.MethodGet, "/login", nil)
	r.Header.Set("If-None-Match", first.Header().Get("Etag"))
	again := httptest.NewRecorder()
	site.ServeHTTP(again, r)
	if body, _ := io.ReadAll(again.Body); again.Code != http.StatusNotModified || len(body) != 0 {
		t.Errorf("got %d %q", again.Code, body)
	}
}

func TestConsoleMustHaveAPage(t *testing.T) {
	t.Parallel()
	if _, err := newSite(fstest.MapFS{"assets/x.js": {}}); err == nil {
		t.Error("a console without a page was taken")
	}
	if site, err := newSite(nil); site != nil || err != nil {
		t.Errorf("no console: %v, %v", site, err)
	}
}
