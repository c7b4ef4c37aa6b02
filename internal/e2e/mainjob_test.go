package e2e

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// TestTheMainJob takes certificates from the wish to the served leaf and back on three servers, two of them real
// nginx under a connection loop.
func TestTheMainJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.serve(bin)
	w.login()
	web1, web2, site := w.nginx("web-1", "shop.test"), w.nginx("web-2", "shop.test"), w.site("site-1", "site.test")
	for _, s := range []*server{web1, web2} {
		s.enrol(map[string]string{"role": "edge"})
		s.run(bin)
	}
	site.enrol(nil)
	site.run(bin)

	create(t, w, apiv1.CertificateSpec{
		Name: "shop", Names: []string{"shop.test"}, Issuer: "private-ca",
		Deployments: []apiv1.Placement{{Selector: "role=edge", Deployer: "nginx", Target: "site"}},
	})
	create(t, w, apiv1.CertificateSpec{
		Name: "site", Names: []string{"site.test"}, Issuer: "private-ca",
		Deployments: []apiv1.Placement{{Server: "site-1", Deployer: "files", Target: "site"}},
	})
	first := w.deployed("shop", "", web1, web2)
	siteLeaf := w.deployed("site", "", site)

	stops := []func() (int64, int64){web1.load(4), web2.load(4)}
	second := first
	for range 3 {
		w.renew("shop")
		second = w.deployed("shop", second, web1, web2)
	}
	rollBackServer(t, w, web1, second)
	rollBackCertificate(t, w, second, web1, web2)
	rollBackOnTheServer(t, w, web2)
	for n, stop := range stops {
		tried, failed := stop()
		t.Logf("web-%d: %d handshakes, %d failed", n+1, tried, failed)
		if failed > 0 || tried < 100 {
			t.Errorf("web-%d: %d of %d handshakes failed", n+1, failed, tried)
		}
	}
	failedDeployment(t, w, site, siteLeaf)
	gitForPeople(t, w, web1)
	commandLine(t, w)
	noSecrets(t, w, web1, site)
}

func create(t *testing.T, w *world, spec apiv1.CertificateSpec) {
	t.Helper()
	if _, err := w.client.CreateCertificate(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
}

// rollBackServer holds one server at its former commit and lets it go.
func rollBackServer(t *testing.T, w *world, s *server, newest string) {
	t.Helper()
	if _, err := w.client.RollbackServer(t.Context(), s.name, apiv1.RollbackRequest{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	w.await("the rolled back leaf", func() bool { return s.seen() != newest })
	held, err := w.client.Server(t.Context(), s.name)
	if err != nil || held.Hold == nil {
		t.Fatalf("server is not held: %v", err)
	}
	if _, err := w.client.ResumeServer(t.Context(), s.name); err != nil {
		t.Fatal(err)
	}
	w.await("the newest leaf after resuming", func() bool { return s.seen() == newest })
}

// rollBackCertificate brings the former issue back on all servers, and renewal waits until it is resumed.
func rollBackCertificate(t *testing.T, w *world, newest string, servers ...*server) {
	t.Helper()
	x, err := w.client.RollbackCertificate(t.Context(), "shop", apiv1.RollbackRequest{Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if !x.Paused || x.Issued.LeafSHA256 == newest {
		t.Fatalf("after the roll back: paused %t, leaf %.12s", x.Paused, x.Issued.LeafSHA256)
	}
	former := w.deployed("shop", newest, servers...)
	if _, err := w.client.ResumeCertificate(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	w.renew("shop")
	w.deployed("shop", former, servers...)
}

// rollBackOnTheServer is the administrator's own roll back, which needs no hub.
func rollBackOnTheServer(t *testing.T, w *world, s *server) {
	t.Helper()
	newest := s.seen()
	agent := filepath.Join(bin, "certferry-agent")
	w.do("", agent, "--config", s.agent, "rollback")
	if s.seen() == newest {
		t.Error("the roll back on the server changed nothing")
	}
	w.await("the hub to hear of the hold", func() bool {
		seen, err := w.client.Server(t.Context(), s.name)
		return err == nil && seen.Held
	})
	w.do("", agent, "--config", s.agent, "resume")
	w.await("the newest leaf after resuming", func() bool { return s.seen() == newest })
}

// failedDeployment makes the site ignore reloads: the old leaf stays, and another commit mends it.
func failedDeployment(t *testing.T, w *world, s *server, leaf string) {
	t.Helper()
	if err := os.WriteFile(s.stuck, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.renew("site")
	w.await("the roll back to be reported", func() bool {
		x, err := w.client.Certificate(t.Context(), "site")
		return err == nil && len(x.Placed) == 1 && x.Placed[0].State == apiv1.DeploymentRolledBack && x.Placed[0].Phase == apiv1.PhaseProbe
	})
	if got := s.seen(); got != leaf {
		t.Errorf("after the automatic roll back a client sees %.12s, want %.12s", got, leaf)
	}
	if err := os.Remove(s.stuck); err != nil {
		t.Fatal(err)
	}
	failed, err := w.client.Certificate(t.Context(), "site")
	if err != nil {
		t.Fatal(err)
	}
	w.renew("site")
	w.deployed("site", failed.Issued.LeafSHA256, s)
}

// gitForPeople is what stock git and gpg make of the repository.
func gitForPeople(t *testing.T, w *world, s *server) {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(w.dir, s.name, "state", "credential"))
	if err != nil {
		t.Fatal(err)
	}
	header := "http.extraHeader=Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(s.name+":"+strings.TrimSpace(string(secret))))
	clone := filepath.Join(w.dir, "clone")
	git := func(args ...string) (string, error) {
		return w.try("", []string{"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GNUPGHOME=" + filepath.Join(w.dir, "gnupg")}, "git", append([]string{"-c", header}, args...)...)
	}
	if out, err := git("clone", "-q", "-b", "servers/"+s.name, w.url+"/git/certferry.git", clone); err != nil {
		t.Fatalf("clone: %v\n%s", err, out)
	}
	if out, err := git("clone", "-q", "-b", "servers/site-1", w.url+"/git/certferry.git", clone+"-other"); err == nil {
		t.Errorf("another server's branch was cloned:\n%s", out)
	}
	log, err := git("-C", clone, "log", "--format=%s")
	if err != nil || !strings.Contains(log, "deploy shop") || !strings.Contains(log, "hold") {
		t.Errorf("git log does not read like the deployment history (%v):\n%s", err, log)
	}
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Log("skipped: git verify-commit, as gpg is not installed")
		return
	}
	w.hub.stop() // keys are exported on the hub's machine
	keys := w.do("", filepath.Join(bin, "certferry-hub"), "--config", w.config, "key", "export")
	home := filepath.Join(w.dir, "gnupg")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = w.try("", []string{"GNUPGHOME=" + home}, "gpgconf", "--kill", "all") }()
	if out, err := w.try(keys, []string{"GNUPGHOME=" + home}, "gpg", "--batch", "--import"); err != nil {
		t.Fatalf("gpg --import: %v\n%s", err, out)
	}
	if out, err := git("-C", clone, "verify-commit", "HEAD"); err != nil {
		t.Errorf("git verify-commit: %v\n%s", err, out)
	}
	w.serve(bin)
	w.login()
}

// commandLine uses the operators' program against the hub.
func commandLine(t *testing.T, w *world) {
	t.Helper()
	program, session := filepath.Join(bin, "certferry"), filepath.Join(w.dir, "session.json")
	w.do(password+"\n", program, "--session", session, "--hub", w.url, "login", "--name", "ops")
	var certificates []apiv1.Certificate
	if err := json.Unmarshal([]byte(w.do("", program, "--session", session, "--output", "json", "cert", "ls")), &certificates); err != nil || len(certificates) != 2 {
		t.Errorf("cert ls: %v, %d certificates", err, len(certificates))
	}
	if out := w.do("", program, "--session", session, "cert", "renew", "--wait", "site"); !strings.Contains(out, "valid") {
		t.Errorf("cert renew --wait:\n%s", out)
	}
	if out := w.do("", program, "--session", session, "server", "show", "web-1"); !strings.Contains(out, "deploy shop") {
		t.Errorf("server show:\n%s", out)
	}
	if _, err := w.client.Server(t.Context(), "nobody"); client.StatusOf(err) != 404 {
		t.Errorf("unknown server: %v", err)
	}
}

// noSecrets searches what others may see for private keys and credentials: repository, database, logs.
func noSecrets(t *testing.T, w *world, servers ...*server) {
	t.Helper()
	canaries := map[string]string{"operator's password": password}
	for _, s := range servers {
		secret, err := os.ReadFile(filepath.Join(w.dir, s.name, "state", "credential"))
		if err != nil {
			t.Fatal(err)
		}
		canaries["credential of "+s.name] = strings.TrimSpace(string(secret))
		key, err := os.ReadFile(s.key)
		if err != nil {
			t.Fatal(err)
		}
		canaries["key of "+s.name] = strings.Split(string(key), "\n")[1]
	}
	objects := w.do("", "git", "-C", filepath.Join(w.dir, "hub", "repo.git"), "cat-file", "--batch-all-objects", "--batch", "--unordered")
	places := map[string]string{"repository": objects, "hub's log": w.hub.said()}
	for _, s := range servers {
		places["log of "+s.name] = s.daemon.said()
	}
	err := filepath.WalkDir(filepath.Join(w.dir, "hub"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if info, err := e.Info(); err == nil && info.Mode().Perm()&0o077 != 0 && !strings.Contains(path, "repo.git") {
			t.Errorf("%s is open to others: %v", path, info.Mode())
		}
		if strings.Contains(filepath.Base(path), "certferry.db") {
			data, err := os.ReadFile(path)
			places[filepath.Base(path)] = string(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range places {
		if strings.Contains(text, "PRIVATE KEY-----") {
			t.Errorf("%s holds a private key", place)
		}
		for what, canary := range canaries {
			if strings.Contains(text, canary) {
				t.Errorf("%s holds the %s", place, what)
			}
		}
	}
}
