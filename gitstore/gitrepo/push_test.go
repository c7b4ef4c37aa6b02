package gitrepo_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/internal/githost"
)

// hosts runs a test against each kind of stock remote: fn gets the remote and the folder of its repository.
func hosts(t *testing.T, fn func(t *testing.T, remote *gitrepo.Remote, dir string)) {
	t.Helper()
	t.Run("https", func(t *testing.T) {
		t.Parallel()
		host := githost.Start(t, true)
		dir, url := host.Create(t, "fleet.git")
		fn(t, httpsRemote(t, host, url), dir)
	})
	for name, settings := range map[string]string{"ssh v0": "", "ssh v2": "AcceptEnv GIT_PROTOCOL"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startSSHD(t, settings)
			dir := filepath.Join(t.TempDir(), "fleet.git")
			githost.Bare(t, dir)
			fn(t, server.remote(t, dir), dir)
		})
	}
}

func httpsRemote(t *testing.T, host *githost.Host, url string) *gitrepo.Remote {
	t.Helper()
	pool := x509.NewCertPool()
	if data, err := os.ReadFile(host.CAFile); err == nil {
		pool.AppendCertsFromPEM(data)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &gitrepo.Remote{
		URL: url, Username: githost.Writer, Password: githost.Password, HTTP: &http.Client{Transport: transport}, Limits: gitrepo.PushLimits,
	}
}

// fleet makes main and n server branches.
func fleet(t *testing.T, r *gitrepo.Repo, n int, text string) {
	t.Helper()
	put(t, r, mainRef, "main "+text, "certificates/a.yaml", text, "issued/ab/a/chain.pem", "chain")
	updates := make([]gitrepo.Update, 0, n)
	for i := range n {
		updates = append(updates, update(r, fmt.Sprintf("refs/heads/servers/web-%d", i), "deploy "+text, "manifest.json", fmt.Sprintf("{%q:%d}", text, i), "bundles/a.pgp", text))
	}
	if _, err := r.Apply(t.Context(), updates, nil); err != nil {
		t.Fatal(err)
	}
}

// behind lists what has to move on a remote that has there.
func behind(r *gitrepo.Repo, there map[string]gitrepo.Hash) []gitrepo.RefUpdate {
	var updates []gitrepo.RefUpdate
	for ref, h := range r.Refs() {
		if there[ref] != h {
			updates = append(updates, gitrepo.RefUpdate{Ref: ref, Old: there[ref], New: h})
		}
	}
	return updates
}

func push(t *testing.T, remote *gitrepo.Remote, r *gitrepo.Repo) {
	t.Helper()
	there, err := remote.List(t.Context(), "refs/heads/")
	if err != nil {
		t.Fatal(err)
	}
	results, err := remote.Push(t.Context(), r, behind(r, there), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range results {
		if result.Err != nil {
			t.Fatalf("%s: %v", result.Ref, result.Err)
		}
	}
	there, err = remote.List(t.Context(), "refs/heads/")
	if left := behind(r, there); err != nil || len(left) != 0 {
		t.Fatalf("after the push the remote lacks %v, %v", left, err)
	}
}

// TestPushAndReadBack takes a fleet to stock remotes and back: what an agent fetches there, and what the hub does.
func TestPushAndReadBack(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, remote *gitrepo.Remote, dir string) {
		t.Helper()
		r := openRepo(t, t.TempDir())
		fleet(t, r, 30, "one")
		push(t, remote, r)
		fleet(t, r, 30, "two")
		push(t, remote, r)
		fsck(t, dir)

		tip, err := remote.Poll(t.Context(), "refs/heads/servers/web-7", "")
		if want, _ := r.Ref("refs/heads/servers/web-7"); err != nil || tip.Hash != want {
			t.Fatalf("poll: %+v %v", tip, err)
		}
		if none, err := remote.Poll(t.Context(), "refs/heads/servers/nobody", ""); err != nil || !none.Hash.IsZero() {
			t.Errorf("poll of no branch: %+v %v", none, err)
		}
		got, err := remote.Fetch(t.Context(), "refs/heads/servers/web-7", tip.Hash)
		if err != nil || string(got.Files["bundles/a.pgp"]) != "two" || len(got.Files) != 2 {
			t.Fatalf("fetch: %+v %v", got, err)
		}
		if _, err := remote.Fetch(t.Context(), "refs/heads/servers/web-7", gitrepo.Hash{1}); err == nil {
			t.Error("a commit that nobody has was fetched")
		}

		// People commit on the remote.
		clone := filepath.Join(t.TempDir(), "clone")
		runGit(t, filepath.Dir(clone), "clone", "-q", dir, clone)
		for n := range 3 {
			if err := os.WriteFile(filepath.Join(clone, "certificates", "b.yaml"), fmt.Append(nil, "people ", n), 0o600); err != nil {
				t.Fatal(err)
			}
			runGit(t, clone, "add", ".")
			runGit(t, clone, "commit", "-q", "-m", "wish")
		}
		runGit(t, clone, "push", "-q", "origin", "main")
		there, err := remote.List(t.Context(), mainRef)
		if err != nil || len(there) != 1 {
			t.Fatalf("list: %v %v", there, err)
		}
		own, _ := r.Ref(mainRef)
		in, err := remote.FetchHistory(t.Context(), r, there[mainRef], []gitrepo.Hash{own})
		if err != nil {
			t.Fatal(err)
		}
		// Three commits of three trees and a file at most: the rest was here already.
		commits, err := in.Between(own, there[mainRef])
		if err != nil || len(commits) != 3 || in.Len() > 15 {
			t.Errorf("%d commits in %d objects, %v", len(commits), in.Len(), err)
		}
		if data, err := in.ReadFile(there[mainRef], "certificates/b.yaml"); err != nil || string(data) != "people 2" {
			t.Errorf("read %q, %v", data, err)
		}
		results, err := remote.Push(t.Context(), r, []gitrepo.RefUpdate{{Ref: "refs/heads/servers/web-3", Old: mustRef(t, r, "refs/heads/servers/web-3")}}, true)
		if err != nil || results[0].Err != nil {
			t.Errorf("remove a branch: %v %v", results, err)
		}
		if out := runGit(t, dir, "for-each-ref", "--format=%(refname)", "refs/heads/servers/"); strings.Count(out, "\n") != 28 {
			t.Errorf("branches after removing one of 30:\n%s", out)
		}
	})
}

func mustRef(t *testing.T, r *gitrepo.Repo, name string) gitrepo.Hash {
	t.Helper()
	h, ok := r.Ref(name)
	if !ok {
		t.Fatalf("no reference %s", name)
	}
	return h
}

// TestPushIsCompareAndSwap: one stale old value of many leaves all as they are, or that one alone.
func TestPushIsCompareAndSwap(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, remote *gitrepo.Remote, dir string) {
		t.Helper()
		r := openRepo(t, t.TempDir())
		fleet(t, r, 5, "one")
		push(t, remote, r)
		first, _ := remote.List(t.Context(), "refs/heads/")
		fleet(t, r, 5, "two")
		updates := behind(r, first)
		for i := range updates {
			if updates[i].Ref == "refs/heads/servers/web-2" {
				updates[i].Old = gitrepo.Hash{0xab}
			}
		}
		results, err := remote.Push(t.Context(), r, updates, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range results {
			if result.Err == nil {
				t.Errorf("%s moved beside a stale one", result.Ref)
			}
			if result.Ref == "refs/heads/servers/web-2" && !errors.Is(result.Err, gitrepo.ErrStale) {
				t.Errorf("stale: %v", result.Err)
			}
		}
		if now, err := remote.List(t.Context(), "refs/heads/"); err != nil || len(behind(r, now)) != 6 {
			t.Errorf("the remote moved: %v", err)
		}
		results, err = remote.Push(t.Context(), r, updates, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range results {
			if stale := result.Ref == "refs/heads/servers/web-2"; stale != (result.Err != nil) {
				t.Errorf("without atomic: %s: %v", result.Ref, result.Err)
			}
		}
		fsck(t, dir)
	})
}

// TestMergesSendWhatIsMissing: a merge of what people did beside the hub must not send all history again.
func TestMergesSendWhatIsMissing(t *testing.T) {
	t.Parallel()
	host := githost.Start(t, false)
	dir, url := host.Create(t, "fleet.git")
	remote := httpsRemote(t, host, url)
	r := openRepo(t, t.TempDir())
	for n := range 30 {
		put(t, r, mainRef, "before", fmt.Sprintf("certificates/c%d.yaml", n), "x")
	}
	base := mustRef(t, r, mainRef)
	put(t, r, "refs/heads/people", "theirs", "x", "y")
	theirs := update(r, "refs/heads/people", "theirs", "certificates/p.yaml", "p")
	theirs.Base, theirs.Parents = base, []gitrepo.Hash{base}
	hashes, err := r.Apply(t.Context(), []gitrepo.Update{theirs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Push(t.Context(), r, []gitrepo.RefUpdate{{Ref: mainRef, New: hashes[0]}}, true); err != nil {
		t.Fatal(err)
	}
	ours := put(t, r, mainRef, "ours", "certificates/o.yaml", "o")
	merge := update(r, mainRef, "merge", "certificates/p.yaml", "p")
	merge.Parents = []gitrepo.Hash{ours, hashes[0]}
	merged, err := r.Apply(t.Context(), []gitrepo.Update{merge}, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := runGit(t, dir, "count-objects", "-v")
	results, err := remote.Push(t.Context(), r, []gitrepo.RefUpdate{{Ref: mainRef, Old: hashes[0], New: merged[0]}}, true)
	if err != nil || results[0].Err != nil {
		t.Fatalf("push: %v %v", err, results)
	}
	after := runGit(t, dir, "count-objects", "-v")
	// Two commits, two root folders, two folders and a file, loose as git keeps small pushes.
	if grown := loose(t, after) - loose(t, before); grown > 8 {
		t.Errorf("the merge sent %d objects", grown)
	}
	fsck(t, dir)
}

func loose(t *testing.T, counts string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(counts, "count: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func script(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "hooks", name), []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestFaultsOfRemotes: every way in which a remote fails has a class of its own and says what is wrong.
func TestFaultsOfRemotes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, host *githost.Host, dir string, remote *gitrepo.Remote)
		want  error
		says  string
		free  bool // without atomic
	}{
		"down": {func(_ *testing.T, _ *githost.Host, _ string, r *gitrepo.Remote) { r.URL = "http://127.0.0.1:1/x.git" }, gitrepo.ErrUnreachable, "refused", false},
		"busy": {func(_ *testing.T, h *githost.Host, _ string, _ *gitrepo.Remote) {
			h.Break(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "120")
				w.WriteHeader(http.StatusServiceUnavailable)
			})
		}, gitrepo.ErrUnreachable, "503", false},
		"one byte a second": {func(_ *testing.T, h *githost.Host, _ string, r *gitrepo.Remote) {
			r.Limits.Timeout = 500 * time.Millisecond
			h.Break(func(w http.ResponseWriter, r *http.Request) {
				for _, c := range []byte("001f# service=git-receive-pack\n0000") {
					_, _ = w.Write([]byte{c})
					_ = http.NewResponseController(w).Flush()
					select {
					case <-r.Context().Done():
						return
					case <-time.After(time.Second):
					}
				}
			})
		}, gitrepo.ErrSlow, "", false},
		"full": {func(t *testing.T, _ *githost.Host, dir string, _ *gitrepo.Remote) {
			t.Helper()
			script(t, dir, "pre-receive", "echo 'fatal: write error: No space left on device' >&2; exit 1\n")
		}, gitrepo.ErrFull, "No space left", false},
		"wrong password": {func(_ *testing.T, _ *githost.Host, _ string, r *gitrepo.Remote) { r.Password = "wrong secret" }, gitrepo.ErrDenied, "", false},
		"may only read":  {func(_ *testing.T, _ *githost.Host, _ string, r *gitrepo.Remote) { r.Username = githost.Reader }, gitrepo.ErrReadOnly, "may not push", false},
		"no repository":  {func(_ *testing.T, _ *githost.Host, _ string, r *gitrepo.Remote) { r.URL += "x" }, gitrepo.ErrNoRepository, "404", false},
		"hook": {func(t *testing.T, _ *githost.Host, dir string, _ *gitrepo.Remote) {
			t.Helper()
			script(t, dir, "pre-receive", "echo 'ticket number missing' >&2; exit 1\n")
		}, gitrepo.ErrRejected, "ticket number missing", false},
		"hook of one": {func(t *testing.T, _ *githost.Host, dir string, _ *gitrepo.Remote) {
			t.Helper()
			script(t, dir, "update", "echo protected >&2; exit 1\n")
		}, gitrepo.ErrRejected, "protected", true},
		"not atomic": {func(t *testing.T, _ *githost.Host, dir string, _ *gitrepo.Remote) {
			t.Helper()
			config := filepath.Join(dir, "config")
			data, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(config, append(data, "[receive]\n\tadvertiseAtomic = false\n"...), 0o600); err != nil {
				t.Fatal(err)
			}
		}, gitrepo.ErrNotAtomic, "", false},
		"redirect": {func(_ *testing.T, h *githost.Host, _ string, _ *gitrepo.Remote) {
			h.Break(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			})
		}, nil, "redirects", false},
		"no git": {func(_ *testing.T, h *githost.Host, _ string, _ *gitrepo.Remote) {
			h.Break(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello</html>")) })
		}, nil, "does not speak Git", false},
		"another certificate": {func(_ *testing.T, _ *githost.Host, _ string, r *gitrepo.Remote) { r.HTTP = nil }, gitrepo.ErrHostKey, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := githost.Start(t, true)
			dir, url := host.Create(t, "fleet.git")
			remote := httpsRemote(t, host, url)
			r := openRepo(t, t.TempDir())
			fleet(t, r, 2, "one")
			tt.spoil(t, host, dir, remote)
			results, err := remote.Push(t.Context(), r, behind(r, nil), !tt.free)
			if err == nil {
				err = results[0].Err
			}
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("%v, want %v %q", err, tt.want, tt.says)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), githost.Password) {
				t.Errorf("the password is in the error: %v", err)
			}
			if name == "busy" && gitrepo.RetryAfter(err) != 2*time.Minute {
				t.Errorf("retry after %s", gitrepo.RetryAfter(err))
			}
		})
	}
}

// TestFaultsOverSSH: the same over ssh, where the server's word is all there is.
func TestFaultsOverSSH(t *testing.T) {
	t.Parallel()
	server := startSSHD(t, "")
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, r *gitrepo.Remote)
		want  error
	}{
		"another host key": {func(t *testing.T, r *gitrepo.Remote) { t.Helper(); r.SSH = server.other(t, true) }, gitrepo.ErrHostKey},
		"unknown host":     {func(t *testing.T, r *gitrepo.Remote) { t.Helper(); r.SSH = server.other(t, false) }, gitrepo.ErrHostKey},
		"unknown key": {func(t *testing.T, r *gitrepo.Remote) {
			t.Helper()
			key := filepath.Join(t.TempDir(), "key")
			newKey(t, key)
			var err error
			if r.SSH, err = gitrepo.NewSSH(key, server.knownHosts); err != nil {
				t.Fatal(err)
			}
		}, gitrepo.ErrDenied},
		"no repository": {func(_ *testing.T, r *gitrepo.Remote) { r.URL += "x" }, gitrepo.ErrNoRepository},
		"another port": {func(_ *testing.T, r *gitrepo.Remote) {
			r.URL = strings.Replace(r.URL, server.address, "127.0.0.1:1", 1)
		}, gitrepo.ErrHostKey},
		"no key":      {func(_ *testing.T, r *gitrepo.Remote) { r.SSH = nil }, nil},
		"bad path":    {func(_ *testing.T, r *gitrepo.Remote) { r.URL += "'; touch /tmp/x; '" }, nil},
		"credentials": {func(_ *testing.T, r *gitrepo.Remote) { r.URL = "ssh://git:secret@" + server.address + "/x" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "fleet.git")
			githost.Bare(t, dir)
			remote := server.remote(t, dir)
			tt.spoil(t, remote)
			_, polled := remote.Poll(t.Context(), mainRef, "")
			r := openRepo(t, t.TempDir())
			fleet(t, r, 1, "one")
			_, pushed := remote.Push(t.Context(), r, behind(r, nil), true)
			for _, err := range []error{polled, pushed} {
				if err == nil || tt.want != nil && !errors.Is(err, tt.want) || strings.Contains(err.Error(), "secret") {
					t.Errorf("%v, want %v", err, tt.want)
				}
			}
		})
	}
}

// other trusts no host, or this one with another key.
func (s *sshd) other(t *testing.T, named bool) *gitrepo.SSH {
	t.Helper()
	known := filepath.Join(t.TempDir(), "known")
	data, err := os.ReadFile(s.knownHosts)
	if err != nil {
		t.Fatal(err)
	}
	line := ""
	if named {
		other := startSSHD(t, "")
		theirs, err := os.ReadFile(other.knownHosts)
		if err != nil {
			t.Fatal(err)
		}
		line = strings.Fields(string(data))[0] + " " + strings.Join(strings.Fields(string(theirs))[1:], " ") + "\n"
	}
	if err := os.WriteFile(known, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	auth, err := gitrepo.NewSSH(s.clientKey, known)
	if err != nil {
		t.Fatal(err)
	}
	return auth
}
