// What surrounds each request: its id, the log line, headers, limits.

package httpapi

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/certferry/certferry/hub"
)

const (
	// maxBody bounds each request's body.
	maxBody = 1 << 20
	// operationTimeout bounds the work of one operation.
	operationTimeout = 30 * time.Second
	readyTimeout     = 5 * time.Second

	apiPolicy     = "default-src 'none'; frame-ancestors 'none'"
	consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
		"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

// call is what is known of a request beside its content. The middlewares fill it in as it passes them.
type call struct {
	requestID string
	address   string
	operation string
	// refresh is the value of the refresh cookie.
	refresh   string
	principal hub.Principal
}

type callKey struct{}

// callOf answers the call of a request; outside of one, an empty call.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{principal: hub.Principal{Kind: hub.Anonymous}}
}

func unwrap(ctx huma.Context) (*http.Request, http.ResponseWriter) { return humachi.Unwrap(ctx) }

// begin gives the request an id. One that came with the request is not used: it would stand in commits and in the
// audit history.
func (s *server) begin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{
			requestID: strings.ToLower(rand.Text()[:16]),
			address:   clientAddress(r.RemoteAddr),
			principal: hub.Principal{Kind: hub.Anonymous},
		}
		if ck, err := r.Cookie(s.cookieName()); err == nil {
			c.refresh = ck.Value
		}
		w.Header().Set("X-Request-Id", c.requestID)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})
}

// clientAddress is the address of the connection. What headers say of it anybody can write.
func clientAddress(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	return ip.Unmap().String()
}

// accessLog writes one line a request: no query, no header, no body.
func (s *server) accessLog(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.cfg.Now()
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(ww, r)
		c := callOf(r.Context())
		level := slog.LevelInfo
		if c.operation == "healthz" || c.operation == "readyz" || c.operation == "git" && ww.Status() == http.StatusNotModified {
			level = slog.LevelDebug // each poll of each agent
		}
		s.cfg.Logger.Log(r.Context(), level, "request",
			"request_id", c.requestID, "method", oneLine(cut(r.Method, 16)), "route", routeOf(r), "operation", c.operation,
			"status", ww.Status(), "bytes", ww.BytesWritten(), "duration_ms", s.cfg.Now().Sub(start).Milliseconds(),
			"address", c.address, "actor", actorOf(c.principal))
	})
}

// routeOf is the route's pattern, which unlike the path holds nothing that a caller chose.
func routeOf(r *http.Request) string {
	if rc := chi.RouteContext(r.Context()); rc != nil {
		return rc.RoutePattern()
	}
	return ""
}

func cut(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

func (s *server) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			c := callOf(r.Context())
			s.cfg.Logger.ErrorContext(r.Context(), "request panicked", "request_id", c.requestID,
				"operation", c.operation, "panic", v, "stack", string(debug.Stack()))
			if ww, ok := w.(middleware.WrapResponseWriter); ok && ww.Status() != 0 {
				panic(http.ErrAbortHandler) // half an answer is out: cut the connection
			}
			writeProblem(w, newProblem(http.StatusInternalServerError, c.requestID))
		}()
		next.ServeHTTP(w, r)
	})
}

// headers sets what browsers must know of any answer. Pages of the console widen the policy to their own files.
func (s *server) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", apiPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if s.secure {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if strings.HasPrefix(r.URL.Path, "/api/") {
			h.Set("Cache-Control", "no-store")
		}
		next.ServeHTTP(w, r)
	})
}

// sameOrigin refuses what a page of another site makes a browser send.
func (s *server) sameOrigin(next http.Handler) http.Handler {
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		c.operation = "cross-origin"
		err := &hub.Error{Class: hub.ErrForbidden, Message: "requests from pages of other sites are not taken"}
		writeProblem(w, s.fail(r.Context(), c, err))
	}))
	return guard.Handler(next)
}

func limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The Git handler has limits of its own: a push is larger than any request of the API.
		if r.Body != nil && !strings.HasPrefix(r.URL.Path, GitPath+"/") {
			// One byte above the operations' own limit, so that they answer with 413 themselves.
			r.Body = http.MaxBytesReader(w, r.Body, maxBody+1)
		}
		next.ServeHTTP(w, r)
	})
}

// conditional answers 304 to a reader that has the same representation already: a console that polls.
func conditional(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isRead(r.Method) {
			next.ServeHTTP(w, r)
			return
		}
		held := &heldWriter{ResponseWriter: w}
		next.ServeHTTP(held, r)
		held.release(r)
	})
}

// heldWriter keeps an answer until its entity tag is known.
type heldWriter struct {
	http.ResponseWriter

	status int
	body   []byte
}

// WriteHeader implements http.ResponseWriter.
func (h *heldWriter) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

// Write implements http.ResponseWriter.
func (h *heldWriter) Write(p []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	h.body = append(h.body, p...)
	return len(p), nil
}

// Unwrap lets http.ResponseController reach the connection.
func (h *heldWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *heldWriter) release(r *http.Request) {
	if h.status == 0 {
		h.status = http.StatusOK
	}
	if h.status == http.StatusOK {
		sum := sha256.Sum256(h.body)
		tag := `"` + hex.EncodeToString(sum[:12]) + `"`
		h.Header().Set("ETag", tag)
		h.Header().Set("Cache-Control", "private, no-cache")
		h.Header().Set("Vary", "Authorization")
		if matches(r.Header.Get("If-None-Match"), tag) {
			h.Header().Del("Content-Type")
			h.ResponseWriter.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Header().Set("Content-Length", strconv.Itoa(len(h.body)))
	h.ResponseWriter.WriteHeader(h.status)
	_, _ = h.ResponseWriter.Write(h.body)
}

// matches compares weakly, as RFC 9110 §13.1.2 wants for If-None-Match.
func matches(header, tag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == "*" {
			return true
		}
	}
	return false
}
