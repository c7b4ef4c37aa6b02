// The door to Git: the handler answers by Git's own protocol; what it denies is recorded here like any other denial.

package httpapi

import (
	"context"
	"net/http"

	"github.com/go-chi/chi/v5/middleware"
)

// auditGit records the refusals of the Git handler. A first request without a credential is how git asks for one, and no
// attempt. Beyond what one address may write, the answer stands without a row.
func (s *server) auditGit(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		watched := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(watched, r)
		name, _, tried := r.BasicAuth()
		status := watched.Status()
		c := callOf(r.Context())
		if !tried || status != http.StatusUnauthorized && status != http.StatusForbidden || !s.strangers.allow(c.address) {
			return
		}
		reason := "the credential is not valid"
		if status == http.StatusForbidden {
			reason = "not allowed to push"
		}
		// The name is what the caller said; it is text, not proof.
		if err := s.auditDenied(context.WithoutCancel(r.Context()), c, oneLine(cut(name, 100)), reason); err != nil {
			s.logFault(r.Context(), c, err)
		}
	}
}
