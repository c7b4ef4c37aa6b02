package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
	"github.com/certferry/certferry/internal/githost"
)

// desk is a person's machine with a clone of main.
type desk struct {
	w     *world
	env   []string
	clone string
}

// newDesk sets up stock git for a person and clones url.
func (w *world) newDesk(name, url string, settings ...string) *desk {
	w.t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		w.t.Skip("skipped: git is not installed")
	}
	home := filepath.Join(w.dir, "home-"+name)
	if err := os.MkdirAll(home, 0o700); err != nil {
		w.t.Fatal(err)
	}
	d := &desk{w: w, clone: filepath.Join(home, "fleet"), env: []string{"HOME=" + home, "GNUPGHOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"}}
	settings = append([]string{"user.name=" + name, "user.email=" + name + "@example.com"}, settings...)
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		d.must("git", "config", "--global", key, value)
	}
	d.must("git", "clone", "-q", url, d.clone)
	return d
}

func (d *desk) must(program string, args ...string) string {
	d.w.t.Helper()
	out, err := d.w.try("", d.env, program, args...)
	if err != nil {
		d.w.t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return out
}

func (d *desk) git(args ...string) string {
	d.w.t.Helper()
	return d.must("git", append([]string{"-C", d.clone}, args...)...)
}

// commit writes a file, or several, and commits them.
func (d *desk) commit(message string, files ...string) {
	d.w.t.Helper()
	for i := 0; i+1 < len(files); i += 2 {
		path := filepath.Join(d.clone, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			d.w.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o600); err != nil {
			d.w.t.Fatal(err)
		}
	}
	d.git("add", "-A")
	d.git("commit", "-q", "-m", message)
}

func siteYAML(more string) string {
	return "apiVersion: certferry/v1\nkind: Certificate\nname: site\nnames:\n  - site.test\nissuer: private-ca\n" + more +
		"deployments:\n  - server: site-1\n    deployer: files\n    target: site\n"
}

// TestGitOps works with a clone of the hub's main only: what is pushed is issued and served, what is wrong is refused
// at the terminal, and nobody's work is lost.
func TestGitOps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.serve(bin)
	w.login()
	site, second := w.site("site-1", "site.test"), w.site("site-2", "second.test")
	for _, s := range []*server{site, second} {
		s.enrol(nil)
		s.run(bin)
	}
	program, session := filepath.Join(bin, "certferry"), filepath.Join(w.dir, "session.json")
	w.do(password+"\n", program, "--session", session, "--hub", w.url, "login", "--name", "ops")
	helper := "credential." + w.url + ".helper=!" + program + " --session " + session + " git-credential"
	ann := w.newDesk("ann", w.url+"/git/certferry.git", helper)
	bob := w.newDesk("bob", w.url+"/git/certferry.git", helper)

	ann.commit("ask for site", "certificates/site.yaml", siteYAML(""))
	ann.must(program, "lint", ann.clone)
	if out := ann.must(program, "--session", session, "plan", ann.clone); !strings.Contains(out, "certificate site: will be issued (new) by private-ca, goes to 1 server") {
		t.Errorf("the plan says\n%s", out)
	}
	if out := ann.git("push", "origin", "main"); !strings.Contains(out, "remote: certificate site: will be issued (new)") {
		t.Errorf("the push says\n%s", out)
	}
	first := w.deployed("site", "", site)

	// What is wrong changes nothing, and is told where it was done.
	ann.git("pull", "-q", "--rebase")
	ann.commit("mistakes", "certificates/site.yaml", siteYAML("keyType: dsa\ncolour: red\n"), "certificates/other.yaml", "name: other\nnames: [other.test]\nissuer: nobody\n")
	out, err := w.try("", ann.env, "git", "-C", ann.clone, "push", "origin", "main")
	if err == nil || !strings.Contains(out, `remote: certificates/site.yaml:8: unknown key "colour"`) {
		t.Errorf("the push of mistakes says %v\n%s", err, out)
	}
	ann.git("reset", "-q", "--hard", "origin/main")
	ann.commit("another mistake", "certificates/other.yaml", "name: other\nnames: [other.test]\nissuer: nobody\n")
	out, err = w.try("", ann.env, "git", "-C", ann.clone, "push", "origin", "main")
	if err == nil || !strings.Contains(out, "remote: certificates/other.yaml:3: issuer: no such issuer; there are: private-ca") {
		t.Errorf("the push of another mistake says %v\n%s", err, out)
	}
	if got := site.seen(); got != first {
		t.Errorf("refused pushes changed what is served: %.12s", got)
	}
	refusalAlert(t, w, true)

	// Two people at once: who comes second pulls, and both changes stand.
	ann.git("reset", "-q", "--hard", "origin/main")
	ann.commit("ask for second", "certificates/second.yaml", strings.NewReplacer("name: site", "name: second", "site.test", "second.test", "site-1", "site-2").Replace(siteYAML("")))
	bob.git("pull", "-q", "--rebase")
	bob.commit("tell others", "README.md", "Ask ops first.\n")
	bob.git("push", "-q", "origin", "main")
	if out, err := w.try("", ann.env, "git", "-C", ann.clone, "push", "origin", "main"); err == nil {
		t.Errorf("a push beside main was taken:\n%s", out)
	}
	ann.git("pull", "-q", "--rebase")
	ann.git("push", "-q", "origin", "main")
	w.deployed("second", "", second)
	refusalAlert(t, w, false)
	ann.git("pull", "-q", "--rebase")
	log := ann.git("log", "--format=%an: %s", "main")
	for _, want := range []string{"ann: ask for site", "ann: ask for second", "bob: tell others"} {
		if !strings.Contains(log, want) {
			t.Errorf("git log lacks %q:\n%s", want, log)
		}
	}
}

// refusalAlert waits until there is an open alert about a refusal, or none.
func refusalAlert(t *testing.T, w *world, want bool) {
	t.Helper()
	w.await("the alert about a refusal", func() bool {
		list, err := w.client.Alerts(t.Context(), false, client.Page{})
		return err == nil && slices.ContainsFunc(list.Items, func(a apiv1.Alert) bool { return a.Kind == "intent_refused" }) == want
	})
}

// statuses stands in for the API of a Git host, and keeps the newest status of each commit.
type statuses struct {
	mu  sync.Mutex
	all map[string]string
}

func (s *statuses) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		State       string `json:"state"`
		Context     string `json:"context"`
		Description string `json:"description"`
	}
	data, err := io.ReadAll(r.Body)
	commit, ours := strings.CutPrefix(r.URL.Path, "/api/v1/repos/ops/fleet/statuses/")
	if err != nil || !ours || json.Unmarshal(data, &body) != nil || r.Header.Get("Authorization") != "token sesame" || body.Context != "certferry" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.all[commit] = body.State + " " + body.Description
	s.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
}

func (s *statuses) of(commit string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[commit]
}

// TestGitOpsOnAHost lets people work on a stock Git host beside the hub: signed commits count, others are refused on
// the record, and the host shows both.
func TestGitOpsOnAHost(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("skipped: gpg is not installed")
	}
	host := githost.Start(t, false)
	_, url := host.Create(t, "fleet.git")
	shown := &statuses{all: map[string]string{}}
	api := httptest.NewServer(shown)
	t.Cleanup(api.Close)
	secrets := t.TempDir()
	for name, text := range map[string]string{"password": githost.Password, "token": "sesame"} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, fmt.Sprintf(`remotes:
  - {name: forge, url: %q, username: %s, password_file: %s/password, intent: true,
     forge: {kind: gitea, api: "%s/api/v1", repository: ops/fleet, token_file: %s/token}}
`, url, githost.Writer, secrets, api.URL, secrets))
	w.serve(bin)
	w.login()
	site := w.site("site-1", "site.test")
	site.enrol(nil)
	site.run(bin)
	current := func() bool {
		list, err := w.client.Remotes(t.Context(), client.Page{})
		return err == nil && len(list.Items) == 1 && list.Items[0].State == "current" && list.Items[0].Behind == 0
	}
	w.await("the remote to have all", current)
	ann := w.newDesk("ann", strings.Replace(url, "://", "://"+githost.Writer+":"+strings.ReplaceAll(githost.Password, " ", "%20")+"@", 1))

	// A commit that nobody signed does not count, and is on the record.
	ann.commit("ask for site", "certificates/site.yaml", siteYAML(""))
	ann.git("push", "-q", "origin", "main")
	unsigned := strings.TrimSpace(ann.git("rev-parse", "HEAD"))
	w.stir("one")
	w.await("the host to show the refusal", func() bool { return strings.HasPrefix(shown.of(unsigned), "failure ") })
	if got := shown.of(unsigned); !strings.Contains(got, "it is not signed") {
		t.Errorf("the status is %q", got)
	}
	refusalAlert(t, w, true)
	w.await("the remote to have all", current)
	ann.git("pull", "-q", "--ff-only")
	if log := ann.git("log", "--format=%s", "main"); !strings.Contains(log, "refuse "+unsigned[:7]) || !strings.Contains(log, "ask for site") {
		t.Errorf("git log does not tell of the refusal:\n%s", log)
	}
	if _, err := os.Stat(filepath.Join(ann.clone, "certificates", "site.yaml")); err == nil {
		t.Error("what was refused stands on main")
	}

	// The same, signed by an operator.
	t.Cleanup(func() { _, _ = w.try("", ann.env, "gpgconf", "--kill", "all") })
	ann.must("gpg", "--batch", "--passphrase", "", "--quick-generate-key", "ann <ann@example.com>", "ed25519", "sign", "never")
	w.write("hub/operators/ann.asc", ann.must("gpg", "--batch", "--armor", "--export", "ann@example.com"))
	ann.git("config", "commit.gpgSign", "true")
	ann.git("checkout", "-q", unsigned, "--", "certificates/site.yaml")
	ann.commit("ask for site, signed")
	ann.git("push", "-q", "origin", "main")
	signed := strings.TrimSpace(ann.git("rev-parse", "HEAD"))
	w.stir("two")
	w.deployed("site", "", site)
	w.await("the host to show that it counts", func() bool {
		return strings.HasPrefix(shown.of(signed), "success applied: certificate site: will be issued (new)")
	})
	refusalAlert(t, w, false)
	w.await("the remote to have all", current)
	ann.git("pull", "-q", "--ff-only")
	if log := ann.git("log", "--format=%s", "main"); !strings.Contains(log, "issue site") {
		t.Errorf("the host lacks what the hub did:\n%s", log)
	}
}

// stir changes main by the API, so that the hub looks at its remotes now and has something to merge with.
func (w *world) stir(name string) {
	w.t.Helper()
	create(w.t, w, apiv1.CertificateSpec{Name: name, Names: []string{name + ".test"}, Issuer: "private-ca"})
}
