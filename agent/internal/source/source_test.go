package source_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitserve"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// access shows web-1 its own branch and nothing else.
type access struct{}

func (access) Authorize(_ context.Context, username, password string) (gitserve.Grant, error) {
	if username != "web-1" || password != "secret" {
		return gitserve.Grant{}, gitserve.ErrDenied
	}
	return gitserve.Grant{Name: username, Refs: []string{manifest.ServerBranch("web-1")}}, nil
}

func (h *hub) serve(store *gitstore.Store) *httptest.Server {
	h.tb.Helper()
	handler := gitserve.New(gitserve.Config{Repo: store.Repo(), Access: access{}, Logger: slog.New(slog.NewTextHandler(h.tb.Output(), nil))})
	server := httptest.NewServer(http.StripPrefix("/git/certferry.git", handler))
	h.tb.Cleanup(server.Close)
	return server
}

func remote(server *httptest.Server, password string) *gitrepo.Remote {
	return &gitrepo.Remote{
		URL: server.URL + "/git/certferry.git", Username: "web-1", Password: password,
		HTTP: server.Client(), Limits: gitrepo.DefaultLimits,
	}
}

func (h *hub) publish(store *gitstore.Store, server string, key *seal.PrivateKey, b *bundle.Bundle) gitstore.Published {
	h.tb.Helper()
	snapshot, err := store.Snapshot()
	h.must(err)
	got, err := store.Publish(h.tb.Context(), snapshot.Commit, []gitstore.ServerState{{
		Server: server, Key: key.Public(),
		Deployments: []gitstore.Wanted{{Certificate: site, Deployer: "files", Target: "web", Bundle: b}},
	}})
	h.must(err)
	h.must(got[0].Err)
	return got[0]
}

func TestTipAndFetchFollowTheBranch(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	store := h.store()
	s := source.New(remote(h.serve(store), "secret"), h.trust(), now)
	// wantTip asks twice: the second answer is "not modified".
	wantTip := func(want string) {
		t.Helper()
		for range 2 {
			if got, _, err := s.Tip(t.Context()); err != nil || got != want {
				t.Fatalf("tip %q, %v; want %q", got, err, want)
			}
		}
	}
	wantTip("")
	h.publish(store, "web-2", h.other, h.ca.Issue(t, site))
	wantTip("")

	first := h.publish(store, "web-1", h.server, h.ca.Issue(t, site))
	wantTip(first.Commit)
	one, err := s.Fetch(t.Context(), source.Floor{})
	if err != nil {
		t.Fatal(err)
	}
	if one.Commit != first.Commit || one.Generation != 1 || len(one.Deployments) != 1 || one.Deployments[0].StepBack {
		t.Errorf("first state %+v", one)
	}

	h.ca.Now = h.ca.Now.Add(time.Minute)
	second := h.publish(store, "web-1", h.server, h.ca.Issue(t, site))
	wantTip(second.Commit)
	floor := source.Floor{Generation: 1, ManifestSHA256: one.ManifestSHA256, KeyringVersion: 3}
	two, err := s.Fetch(t.Context(), floor)
	if err != nil || two.Generation != 2 {
		t.Fatalf("second state %+v, %v", two, err)
	}

	floor = source.Floor{Generation: 2, ManifestSHA256: two.ManifestSHA256, KeyringVersion: 3}
	if _, err := s.Verify(floor, one.Commit, one.Files); !errors.Is(err, source.ErrRefused) {
		t.Errorf("the first state after the second: %v, want ErrRefused", err)
	}
	back, err := s.Load(one.Commit, one.Files)
	if err != nil || !back.Deployments[0].StepBack {
		t.Errorf("the first state by the server's administrator: %+v, %v", back, err)
	}
	if _, err := s.Load(one.Commit, with(one.Files, manifest.SignatureFile, nil)); !errors.Is(err, source.ErrRefused) {
		t.Errorf("a history that somebody changed: %v, want ErrRefused", err)
	}
}

// unreachable wants ErrUnreachable, which is no refusal: the remote's state is not known to be bad.
func unreachable(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, source.ErrUnreachable) || errors.Is(err, source.ErrRefused) {
		t.Errorf("%s: %v, want ErrUnreachable", what, err)
	}
}

func TestTipOfARemoteThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	store := h.store()
	server := h.serve(store)
	published := h.publish(store, "web-1", h.server, h.ca.Issue(t, site))
	_, _, err := source.New(remote(server, "wrong"), h.trust(), now).Tip(t.Context())
	unreachable(t, "wrong credential", err)

	s := source.New(remote(server, "secret"), h.trust(), now)
	if got, _, err := s.Tip(t.Context()); err != nil || got != published.Commit {
		t.Fatalf("tip %q, %v", got, err)
	}
	server.Close()
	_, _, err = s.Tip(t.Context())
	unreachable(t, "tip of a closed remote", err)
	_, err = s.Fetch(t.Context(), source.Floor{})
	unreachable(t, "fetch from a closed remote", err)
}

// liar answers what a test tells it to.
type liar struct {
	tip      gitrepo.Tip
	snapshot *gitrepo.Snapshot
	err      error
}

func (l liar) Poll(context.Context, string, string) (gitrepo.Tip, error) { return l.tip, l.err }

func (l liar) Fetch(context.Context, string, gitrepo.Hash) (*gitrepo.Snapshot, error) {
	return l.snapshot, l.err
}

func TestRemoteThatAsksForPatience(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	down := liar{tip: gitrepo.Tip{RetryAfter: time.Hour}, err: errors.New("503")}
	_, wait, err := source.New(down, h.trust(), now).Tip(t.Context())
	unreachable(t, "busy remote", err)
	if wait != time.Hour {
		t.Errorf("wait %v, want an hour", wait)
	}
}

func TestFetchTellsBadContentFromNone(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for _, tc := range []struct{ err, want error }{
		{fmt.Errorf("fetch: %w", gitrepo.ErrTooLarge), source.ErrRefused},
		{fmt.Errorf("fetch: %w", gitrepo.ErrCorrupt), source.ErrRefused},
		{context.DeadlineExceeded, source.ErrUnreachable},
		{gitrepo.ErrDenied, source.ErrUnreachable},
	} {
		_, err := source.New(liar{err: tc.err}, h.trust(), now).Fetch(t.Context(), source.Floor{})
		if !errors.Is(err, tc.want) || !errors.Is(err, tc.err) {
			t.Errorf("fetch: %v, want %v", err, tc.want)
		}
	}
}

func TestFetchRefusesABranchThatIsNotTheServers(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	b := h.branch()
	b.manifest.Server = "web-2"
	s := source.New(liar{tip: gitrepo.Tip{Hash: gitrepo.Hash{1}}, snapshot: &gitrepo.Snapshot{Files: h.files(b)}}, h.trust(), now)
	if _, _, err := s.Tip(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), source.Floor{}); !errors.Is(err, source.ErrRefused) {
		t.Errorf("fetch: %v, want ErrRefused", err)
	}
}
