// The console's files. Names below /assets/ hold a hash of their content and are kept for ever; the page itself is
// asked for anew each time, and answers every path that is not a file, as its routes are its own.

package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

const indexPage = "index.html"

// contentTypes are those of a built console. The host's own table is not asked: it differs between hosts.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8", ".ico": "image/x-icon",
	".js": "text/javascript; charset=utf-8", ".json": "application/json", ".map": "application/json",
	".mjs": "text/javascript; charset=utf-8", ".png": "image/png", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
	".webmanifest": "application/manifest+json", ".webp": "image/webp", ".woff2": "font/woff2",
}

// encodings are the suffixes of compressed twins, best first.
var encodings = []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// site serves a console.
type site struct {
	files map[string]siteFile
}

type siteFile struct {
	data []byte
	tag  string
}

// newSite reads the files of fsys; nil where there is no console.
func newSite(fsys fs.FS) (http.Handler, error) {
	if fsys == nil {
		return nil, nil
	}
	s := &site{files: map[string]siteFile{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		s.files[name] = siteFile{data: data, tag: `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read console: %w", err)
	}
	if _, ok := s.files[indexPage]; !ok {
		return nil, fmt.Errorf("read console: it has no %s", indexPage)
	}
	return s, nil
}

// ServeHTTP implements http.Handler for GET and HEAD.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	callOf(r.Context()).operation = "console"
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	_, isFile := s.files[name]
	if !isFile {
		if name == "assets" || strings.HasPrefix(name, "assets/") {
			writeProblem(w, newProblem(http.StatusNotFound, callOf(r.Context()).requestID))
			return
		}
		name = indexPage
	}
	h := w.Header()
	h.Set("Content-Security-Policy", consolePolicy)
	h.Set("Content-Type", contentType(name))
	h.Set("Vary", "Accept-Encoding")
	if strings.HasPrefix(name, "assets/") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	file, encoding := s.choose(name, r.Header.Get("Accept-Encoding"))
	if encoding != "" {
		h.Set("Content-Encoding", encoding)
	}
	h.Set("ETag", file.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file.data))
}

// choose answers the smallest form of a file that the reader takes.
func (s *site) choose(name, accepts string) (file siteFile, encoding string) {
	for _, e := range encodings {
		if f, ok := s.files[name+e.suffix]; ok && takes(accepts, e.name) {
			return f, e.name
		}
	}
	return s.files[name], ""
}

// takes reads Accept-Encoding; a coding with q=0 is refused.
func takes(accepts, coding string) bool {
	for part := range strings.SplitSeq(accepts, ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if !strings.EqualFold(strings.TrimSpace(name), coding) {
			continue
		}
		weight := strings.TrimPrefix(strings.TrimSpace(params), "q=")
		q, err := strconv.ParseFloat(weight, 64)
		return err != nil || q > 0
	}
	return false
}

func contentType(name string) string {
	if t, ok := contentTypes[path.Ext(name)]; ok {
		return t
	}
	return "application/octet-stream"
}
