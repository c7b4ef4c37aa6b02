package httpapi_test

import (
	"net/http"
	"testing"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/httpapi"
)

// TestGitDenialsAreRecorded: who tries a wrong credential at the Git door, or pushes without the right to, stands in the
// audit history; asking for a credential is no attempt, and nobody fills the history.
func TestGitDenialsAreRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) {
		c.Git = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch _, password, _ := r.BasicAuth(); password {
			case "good":
			case "viewer":
				w.WriteHeader(http.StatusForbidden)
			default:
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
	})
	try := func(name, password string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.srv.URL+httpapi.GitPath+"/info/refs", nil)
		w.must(err)
		if name != "" {
			req.SetBasicAuth(name, password)
		}
		answer, err := http.DefaultClient.Do(req)
		w.must(err)
		w.must(answer.Body.Close())
	}
	try("", "")
	try("web-1", "good")
	if rows := w.audit().Seq; rows != 0 {
		t.Fatalf("%d rows without a denial", rows)
	}
	try("web-1", "guess")
	if row := w.audit(); row.Action != "git" || row.Object != "web-1" || row.Outcome != hub.OutcomeDenied || row.Address != "127.0.0.1" {
		t.Errorf("got %+v", row)
	}
	try("vera", "viewer")
	if row := w.audit(); row.Object != "vera" || row.Detail != "not allowed to push" {
		t.Errorf("got %+v", row)
	}
	for range 100 {
		try("eve", "guess")
	}
	if rows := w.audit().Seq; rows > 70 {
		t.Errorf("a stranger wrote %d rows", rows)
	}
}
