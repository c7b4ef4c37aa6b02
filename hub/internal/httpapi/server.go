// The router: which handler stands where, and what surrounds each of them.

package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/certferry/certferry/hub/apiv1"
)

type server struct {
	cfg        Config
	api        huma.API
	router     *chi.Mux
	strangers  *limiter
	secure     bool // the public address is https
	registered []string
}

// New builds the handler. It fails where a route is missing from the authorization table, or the table names one
// that does not exist.
func New(cfg Config) (http.Handler, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := newServer(cfg)
	doc, err := s.document()
	if err != nil {
		return nil, err
	}
	site, err := newSite(cfg.Console)
	if err != nil {
		return nil, err
	}
	s.mount(doc, site)
	if err := s.checkRoutes(); err != nil {
		return nil, err
	}
	return s.router, nil
}

// newServer registers all operations; it touches no service.
func newServer(cfg Config) *server {
	overrideHuma()
	s := &server{
		cfg: cfg, router: chi.NewMux(), strangers: newLimiter(cfg.Now),
		secure: strings.HasPrefix(cfg.PublicURL, "https://"),
	}
	s.router.Use(s.begin, s.accessLog, s.recover, s.headers, s.sameOrigin, limitBody, middleware.GetHead)
	api := s.router.With(conditional)
	s.api = humachi.New(api, s.humaConfig())
	s.api.UseMiddleware(s.guard)
	s.addSessions()
	s.addAccounts()
	s.addAgents()
	s.addServers()
	s.addRotations()
	s.addRequests()
	s.addCertificates()
	s.addPreflights()
	s.addIssuers()
	s.addOverview()
	s.addCommits()
	s.addRollouts()
	s.addPlans()
	s.addAlerts()
	s.addJobs()
	s.addCredentials()
	s.addWatches()
	s.addReports()
	s.addRevocations()
	s.addRemotes()
	return s
}

// mount adds what stands outside of the operations.
func (s *server) mount(doc []byte, site http.Handler) {
	s.plain("healthz", http.MethodGet, "/healthz", s.healthz)
	s.plain("readyz", http.MethodGet, "/readyz", s.readyz)
	s.plain("openapi", http.MethodGet, apiv1.Prefix+"/openapi.json", serveDocument(doc))
	s.plain("crl", http.MethodGet, CRLPath+"*", s.crl)
	s.plain("root", http.MethodGet, RootPath+"*", s.rootCertificate)
	if s.cfg.Git != nil {
		git := s.auditGit(http.StripPrefix(GitPath, s.cfg.Git))
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			s.plain("git", method, GitPath+"/*", git.ServeHTTP)
		}
	}
	s.router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		if site != nil && isRead(r.Method) && !isMachinePath(r.URL.Path) {
			site.ServeHTTP(w, r)
			return
		}
		writeProblem(w, newProblem(http.StatusNotFound, callOf(r.Context()).requestID))
	})
	s.router.MethodNotAllowed(s.methodNotAllowed)
}

// plain adds a route that is no operation of the API.
func (s *server) plain(id, method, pattern string, h http.HandlerFunc) {
	s.registered = append(s.registered, id)
	s.router.MethodFunc(method, pattern, func(w http.ResponseWriter, r *http.Request) {
		callOf(r.Context()).operation = id
		h(w, r)
	})
}

// isMachinePath says that no page of the console can stand there.
func isMachinePath(path string) bool {
	return strings.HasPrefix(path, "/api/") || path == "/api" || strings.HasPrefix(path, "/git/") || path == "/git"
}

func isRead(method string) bool { return method == http.MethodGet || method == http.MethodHead }

func (s *server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	p := newProblem(http.StatusMethodNotAllowed, callOf(r.Context()).requestID)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if s.router.Match(chi.NewRouteContext(), method, r.URL.Path) {
			p.header.Add("Allow", method)
			if method == http.MethodGet {
				p.header.Add("Allow", http.MethodHead)
			}
		}
	}
	writeProblem(w, p)
}

// checkRoutes compares what is mounted with the authorization table, in both directions.
func (s *server) checkRoutes() error {
	mounted := 0
	err := chi.Walk(s.router, func(string, string, http.Handler, ...func(http.Handler) http.Handler) error {
		mounted++
		return nil
	})
	if err != nil {
		return fmt.Errorf("walk routes: %w", err)
	}
	if mounted != len(s.registered) {
		return fmt.Errorf("make HTTP API: %d routes are mounted, %d were declared", mounted, len(s.registered))
	}
	for _, id := range s.registered {
		if _, ok := access[id]; !ok {
			return fmt.Errorf("make HTTP API: route %s is not in the authorization table", id)
		}
	}
	for id := range access {
		if !slices.Contains(s.registered, id) && (id != "git" || s.cfg.Git != nil) {
			return fmt.Errorf("make HTTP API: the authorization table names %s, which is no route", id)
		}
	}
	return nil
}

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) { writeState(w, "ok") }

func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Ready != nil {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := s.cfg.Ready(ctx); err != nil {
			c := callOf(r.Context())
			s.logFault(r.Context(), c, err)
			p := newProblem(http.StatusServiceUnavailable, c.requestID)
			p.header.Set("Retry-After", "5")
			writeProblem(w, p)
			return
		}
	}
	writeState(w, "ready")
}

func writeState(w http.ResponseWriter, state string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(`{"status":"` + state + `"}` + "\n"))
}
