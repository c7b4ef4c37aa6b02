package preflight_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/preflight"
	"github.com/certferry/certferry/issuer"
)

const tokens = "/.well-known/acme-challenge/"

func TestWebroot(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var saw string
	port := web(t, func(w http.ResponseWriter, r *http.Request) {
		saw = r.Host + r.URL.Path
		if info, err := os.Stat(filepath.Join(root, r.URL.Path)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("the web server cannot read the token: %v %v", info, err)
		}
		http.FileServer(http.Dir(root)).ServeHTTP(w, r)
	})
	cfg := config(newZones(t, "www.example.com. A 127.0.0.1"))
	cfg.Ports = map[string]string{"80": port}
	report := run(t, cfg, webWish("webroot", root, "www.example.com"))
	wants(t, find(t, report, "http", "www.example.com"), hub.FindingOK, "127.0.0.1 answers")
	if !strings.HasPrefix(saw, "www.example.com"+tokens) || report.Failed() {
		t.Errorf("asked for %s: %v", saw, report.Err())
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	// What was there stays.
	if err := os.MkdirAll(filepath.Join(root, tokens), 0o755); err != nil {
		t.Fatal(err)
	}
	_ = run(t, cfg, webWish("webroot", root, "www.example.com"))
	if left, err := os.ReadDir(filepath.Join(root, tokens)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestWebrootThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	outside, root := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(root, ".well-known")); err != nil {
		t.Fatal(err)
	}
	cfg := config(newZones(t, "www.example.com. A 127.0.0.1"))
	for name, folder := range map[string]string{"missing": filepath.Join(root, "none"), "a link that leads out": root} {
		f := find(t, run(t, cfg, webWish("webroot", folder, "www.example.com")), "http", "www.example.com")
		wants(t, f, hub.FindingFailed, "no token can be written")
		if strings.Contains(f.Detail, root) {
			t.Errorf("%s: the detail shows a path: %s", name, f.Detail)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("written outside: %v %v", left, err)
	}
}

// TestWebrootThatOrdersLeave: where an order puts no token, a check puts none either.
func TestWebrootThatOrdersLeave(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	before, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(newZones(t, "www.example.com. A 127.0.0.1"))
	for _, tt := range []struct {
		err  error
		want hub.FindingState
		text string
	}{
		{&issuer.Error{Class: issuer.Permanent, Detail: "it is the system's"}, hub.FindingFailed, "it is the system's"},
		{errors.New("no driver"), hub.FindingSkipped, "nothing can be ordered"},
	} {
		cfg.Webroot = func(*manifest.Issuer, string) error { return tt.err }
		wants(t, find(t, run(t, cfg, webWish("webroot", root, "www.example.com")), "http", "www.example.com"), tt.want, tt.text)
	}
	if after, err := os.Stat(root); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("it was written to: %v", err)
	}
}

// TestStateless asks web servers of all kinds for a token of nobody's.
func TestStateless(t *testing.T) {
	t.Parallel()
	good := func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s.THUMB\r\n", strings.TrimPrefix(r.URL.Path, tokens))
	}
	secure := httptest.NewTLSServer(http.HandlerFunc(good))
	t.Cleanup(secure.Close)
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, strings.ReplaceAll(to, "PATH", r.URL.Path), http.StatusFound)
		}
	}
	for name, tc := range map[string]struct {
		server http.HandlerFunc
		state  hub.FindingState
		says   string
	}{
		"snippet": {good, hub.FindingOK, "answers with the token"},
		"another account": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, strings.TrimPrefix(r.URL.Path, tokens)+".OTHER")
		}, hub.FindingFailed, "something else"},
		"no snippet":          {http.NotFound, hub.FindingFailed, "status 404"},
		"endless answer":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }, hub.FindingFailed, "something else"},
		"hangs up":            {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, hub.FindingFailed, "breaks the connection off"},
		"to https":            {redirect("https://www.example.com" + "PATH"), hub.FindingOK, "answers"},
		"to another name":     {redirect("https://other.example.com" + "PATH"), hub.FindingOK, "answers"},
		"to a name of nobody": {redirect("https://none.example.com" + "PATH"), hub.FindingFailed, "no address"},
		"to metadata":         {redirect("https://meta.example.com" + "PATH"), hub.FindingFailed, "not asked"},
		"to an address":       {redirect("http://127.0.0.1" + "PATH"), hub.FindingFailed, "IP address"},
		"to IPv6":             {redirect("http://[::1]" + "PATH"), hub.FindingFailed, "IP address"},
		"to another port":     {redirect("http://www.example.com:8080" + "PATH"), hub.FindingFailed, "only 80 and 443"},
		"to another scheme":   {redirect("ftp://www.example.com" + "PATH"), hub.FindingFailed, "http and https"},
		"in a circle":         {redirect("http://www.example.com" + "PATH"), hub.FindingFailed, "too often"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(newZones(t, "www.example.com. A 127.0.0.1", "other.example.com. A 127.0.0.1", "meta.example.com. A 169.254.169.254"))
			cfg.Ports = map[string]string{"80": web(t, tc.server), "443": portOf(t, secure.Listener.Addr())}
			f := find(t, run(t, cfg, webWish("stateless", "", "www.example.com")), "http", "www.example.com")
			wants(t, f, tc.state, tc.says)
			if f.State == hub.FindingFailed && (f.Class != issuer.ValidationFailed || !strings.Contains(f.Next, "snippet")) {
				t.Errorf("class %s, next %s", f.Class, f.Next)
			}
		})
	}
}

// All addresses are asked: a CA may take any.
func TestEachAddressIsAsked(t *testing.T) {
	t.Parallel()
	port := web(t, func(w http.ResponseWriter, r *http.Request) { // listens on 127.0.0.1 only
		_, _ = fmt.Fprint(w, strings.TrimPrefix(r.URL.Path, tokens)+".THUMB")
	})
	cfg := config(newZones(t, "www.example.com. A 127.0.0.1", "www.example.com. A 127.0.0.2", "www.example.com. AAAA fe80::1"))
	cfg.Ports = map[string]string{"80": port}
	report := run(t, cfg, webWish("stateless", "", "www.example.com"))
	wants(t, find(t, report, "address", "www.example.com"), hub.FindingOK, "fe80::1 127.0.0.1 127.0.0.2")
	got := map[hub.FindingState]string{}
	for _, f := range report {
		if f.Check == "http" {
			got[f.State] += f.Detail
		}
	}
	for state, says := range map[hub.FindingState]string{
		hub.FindingOK: "127.0.0.1 answers", hub.FindingFailed: "127.0.0.2 refuses connections", hub.FindingWarning: "fe80::1 leads to an address that is not asked",
	} {
		if !strings.Contains(got[state], says) {
			t.Errorf("%s: %q, want %q", state, got[state], says)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	z := newZones(t, "www.example.com. A 10.0.0.1", "txt.example.com. TXT x", "alias.example.com. CNAME www.example.com.", "broken.example.com. TXT x")
	z.edit(func() { z.rcodes["broken.example.com. A"], z.rcodes["broken.example.com. AAAA"] = 2, 2 })
	for name, tc := range map[string]struct {
		state hub.FindingState
		says  string
	}{
		"www.example.com":    {hub.FindingWarning, "10.0.0.1"},
		"alias.example.com":  {hub.FindingWarning, "10.0.0.1"},
		"txt.example.com":    {hub.FindingFailed, "has no address"},
		"none.example.com":   {hub.FindingFailed, "no such name"},
		"broken.example.com": {hub.FindingFailed, "cannot be looked up"},
	} {
		want := webWish("standalone", "", name)
		wants(t, find(t, run(t, config(z, "ca.test"), want), "address", name), tc.state, tc.says)
	}
	want := webWish("", "", "www.example.com")
	want.Challenge.Type = "tls-alpn-01"
	wants(t, find(t, run(t, config(z, "ca.test"), want), "http", "www.example.com"), hub.FindingSkipped, "port 443")
}

// TestTimeIsBounded has a server that never answers: what is not done in time is skipped, and nobody is held back.
func TestTimeIsBounded(t *testing.T) {
	t.Parallel()
	cfg := config(newZones(t, "www.example.com. A 127.0.0.1"))
	cfg.Ports = map[string]string{"80": web(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
	cfg.Timeout = 200 * time.Millisecond
	c, err := preflight.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	report := c.Check(t.Context(), webWish("stateless", "", "www.example.com"), acme)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	wants(t, find(t, report, "http", "www.example.com"), hub.FindingSkipped, "not done in time")
	if report.Failed() {
		t.Errorf("it fails: %v", report.Err())
	}
}

func TestChallengesThatCannotWork(t *testing.T) {
	t.Parallel()
	cfg := config(newZones(t))
	none := &manifest.Certificate{Name: "x", Names: []string{"a.example.com"}}
	wants(t, find(t, run(t, cfg, none), "challenge", "a.example.com"), hub.FindingFailed, "add a challenge")
	report := run(t, cfg, webWish("stateless", "", "*.example.com"))
	wants(t, find(t, report, "challenge", "*.example.com"), hub.FindingFailed, "dns-01 only")
	if e, ok := errors.AsType[*issuer.Error](report.Err()); !ok || e.Class != issuer.Permanent || e.Name != "*.example.com" {
		t.Errorf("error %v", report.Err())
	}
}
