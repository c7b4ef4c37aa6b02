package httpapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
)

func decodeAs[T any](t *testing.T, r reply, status int) T {
	t.Helper()
	var v T
	if r.status != status {
		t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestCommits lists, shows and compares commits of a real repository.
func TestCommits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.person("vera", apiv1.RoleViewer)
	hubtest.Put(t, w.store, manifest.ServerPath("web-1"), &manifest.Server{
		APIVersion: manifest.APIVersion, Kind: manifest.KindServer, Name: "web-1", Labels: map[string]string{"role": "edge"},
	})
	hubtest.Put(t, w.store, manifest.ServerPath("web-1"), &manifest.Server{
		APIVersion: manifest.APIVersion, Kind: manifest.KindServer, Name: "web-1", Labels: map[string]string{"role": "core"},
	})
	list := decodeAs[apiv1.List[apiv1.Commit]](t, w.get("/api/v1/commits?limit=2", token), http.StatusOK)
	if len(list.Items) != 2 || list.Next == "" || list.Items[0].Subject != "put servers/web-1.yaml" {
		t.Fatalf("got %+v", list)
	}
	more := decodeAs[apiv1.List[apiv1.Commit]](t, w.get("/api/v1/commits?limit=2&after="+list.Next, token), http.StatusOK)
	if len(more.Items) != 2 || more.Next != "" {
		t.Errorf("got second page %+v", more)
	}

	tip := list.Items[0].Hash
	got := decodeAs[apiv1.CommitDetail](t, w.get("/api/v1/commits/"+tip[:7], token), http.StatusOK)
	if got.Hash != tip || got.Signature.State != "hub" || len(got.Signature.Fingerprint) != 40 || got.Verdict != nil || len(got.Parents) != 1 {
		t.Errorf("got %+v", got)
	}
	if len(got.Files) != 1 || got.Files[0].Path != "servers/web-1.yaml" ||
		!strings.Contains(got.Files[0].Diff, "\n-  role: edge\n+  role: core\n") {
		t.Errorf("got files %+v", got.Files)
	}
	if *got.Files[0].OldSize != *got.Files[0].NewSize {
		t.Errorf("got sizes %d and %d", *got.Files[0].OldSize, *got.Files[0].NewSize)
	}

	first := more.Items[1].Hash
	root := decodeAs[apiv1.CommitDetail](t, w.get("/api/v1/commits/"+first, token), http.StatusOK)
	if len(root.Files) != 1 || root.Files[0].OldSize != nil || !strings.Contains(root.Files[0].Diff, "--- /dev/null") {
		t.Errorf("got files of the first commit %+v", root.Files)
	}
	all := decodeAs[apiv1.Comparison](t, w.get("/api/v1/commits/"+tip+"/diff?from="+first, token), http.StatusOK)
	if all.From != first || all.To != tip || len(all.Files) != 2 {
		t.Errorf("got %+v", all)
	}
	one := decodeAs[apiv1.Comparison](t, w.get("/api/v1/commits/"+tip+"/diff", token), http.StatusOK)
	if one.From != list.Items[1].Hash || len(one.Files) != 1 {
		t.Errorf("got %+v", one)
	}

	for path, status := range map[string]int{
		"/commits?branch=servers/web-9":            http.StatusUnprocessableEntity,
		"/commits?branch=../main":                  http.StatusUnprocessableEntity,
		"/commits/0000000":                         http.StatusNotFound,
		"/commits/" + tip[:6]:                      http.StatusUnprocessableEntity,
		"/commits/" + canary:                       http.StatusUnprocessableEntity,
		"/commits/" + tip + "/diff?from=" + canary: http.StatusUnprocessableEntity,
	} {
		if r := w.get("/api/v1"+path, token); r.status != status || strings.Contains(string(r.body), canary) {
			t.Errorf("%s: got %d %s, want %d", path, r.status, r.body, status)
		}
	}
}

// TestForeignCommit shows that a commit is not the hub's.
func TestForeignCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hubtest.Force(t, w.store, "certificates/a.yaml", []byte("not: valid\n"))
	head, _ := w.store.Repo().Ref(manifest.MainBranch)
	c, err := w.store.Repo().Commit(head)
	w.must(err)
	ok := &gitrepo.Commit{}
	*ok = *c
	ok.Signature = "-----BEGIN PGP SIGNATURE-----\n\nxx\n-----END PGP SIGNATURE-----\n"
	if state, fingerprint := w.store.Signature(ok); state != "unknown" || fingerprint != "" {
		t.Errorf("got %s %s for a signature that says nothing", state, fingerprint)
	}
	ok.Signature = ""
	if state, _ := w.store.Signature(ok); state != "none" {
		t.Errorf("got %s for no signature", state)
	}
}

// TestAlertsAreListed shows open alerts, and all on demand.
func TestAlertsAreListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.person("vera", apiv1.RoleViewer)
	for _, name := range []string{"a", "b", "c"} {
		w.must(w.db.Raise(t.Context(), hub.Alert{Kind: hub.AlertGitRemote, Object: name, Level: hub.AlertWarning, Message: "it is down\x1b[31m"}))
	}
	w.must(w.db.Clear(t.Context(), hub.AlertGitRemote, "b"))
	open := decodeAs[apiv1.List[apiv1.Alert]](t, w.get("/api/v1/alerts", token), http.StatusOK)
	if len(open.Items) != 2 || open.Items[0].Object != "c" || open.Items[0].Count != 1 || strings.Contains(open.Items[0].Message, "\x1b") {
		t.Errorf("got %+v", open)
	}
	page := decodeAs[apiv1.List[apiv1.Alert]](t, w.get("/api/v1/alerts?all=true&limit=2", token), http.StatusOK)
	rest := decodeAs[apiv1.List[apiv1.Alert]](t, w.get("/api/v1/alerts?all=true&limit=2&after="+page.Next, token), http.StatusOK)
	if len(page.Items) != 2 || page.Items[1].State != "resolved" || len(rest.Items) != 1 || rest.Items[0].Object != "a" {
		t.Errorf("got %+v and %+v", page, rest)
	}
	if r := w.get("/api/v1/alerts?after="+canary, token); r.status != http.StatusUnprocessableEntity {
		t.Errorf("got %d", r.status)
	}
}
