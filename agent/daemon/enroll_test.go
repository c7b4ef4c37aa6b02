package daemon_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// wantNothingStored wants no identity, key or credential in the state folder.
func (w *world) wantNothingStored() {
	w.t.Helper()
	for _, name := range []string{"identity.json", "key.asc", "credential"} {
		if _, err := os.Stat(filepath.Join(w.cfg.StateDir, name)); !errors.Is(err, fs.ErrNotExist) {
			w.t.Errorf("%s is stored: %v", name, err)
		}
	}
	if _, err := daemon.New(w.cfg, w.env()); !errors.Is(err, daemon.ErrNotEnrolled) {
		w.t.Errorf("open: %v, want ErrNotEnrolled", err)
	}
}

func TestEnroll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.wantNothingStored()
	req := w.request()
	root := strings.ToLower(req.RootFingerprint)
	req.RootFingerprint = root[:20] + " " + root[20:30] + ":" + root[30:] // as people copy it
	got, err := daemon.Enroll(t.Context(), w.cfg, "v1", req, w.env())
	if err != nil || got.Server != "web-1" || got.State != "pending" || got.Fingerprint != w.agentKey.Fingerprint() {
		t.Fatalf("enrol: %+v, %v", got, err)
	}
	if s := w.status(w.agent()); s.Fingerprint != got.Fingerprint || s.Hub != w.server.URL {
		t.Errorf("status %+v", s)
	}

	if _, err := daemon.Enroll(t.Context(), w.cfg, "v1", req, w.env()); !errors.Is(err, daemon.ErrEnrolled) {
		t.Errorf("enrol again: %v, want ErrEnrolled", err)
	}
	req.Force = true
	_, err = daemon.Enroll(t.Context(), w.cfg, "v1", req, w.env())
	if client.StatusOf(err) != 403 {
		t.Errorf("enrol with a used token: %v, want status 403", err)
	}
	w.status(w.agent()) // the identity is still there

	good := w.issue()
	w.deployed(w.agent(), w.publish(good), good)
	w.tokenUsed = false
	again, err := daemon.Enroll(t.Context(), w.cfg, "v1", req, w.env())
	if err != nil || again.Fingerprint == got.Fingerprint {
		t.Fatalf("enrol anew: %+v, %v", again, err)
	}
	if s := w.status(w.agent()); s.Fingerprint != again.Fingerprint || s.Commit != "" || s.NewestGeneration != 0 || len(s.History) != 0 {
		t.Errorf("status after a new enrolment: %+v", s)
	}
}

func TestEnrollOfADamagedIdentityAsksForForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent()
	w.must(os.WriteFile(filepath.Join(w.cfg.StateDir, "identity.json"), []byte("{"), 0o600))
	w.tokenUsed = false
	req := w.request()
	if _, err := daemon.Enroll(t.Context(), w.cfg, "v1", req, w.env()); err == nil || !strings.Contains(err.Error(), "--force") || w.tokenUsed {
		t.Errorf("enrol: %v, token used %v", err, w.tokenUsed)
	}
	req.Force = true
	_, err := daemon.Enroll(t.Context(), w.cfg, "v1", req, w.env())
	w.must(err)
}

func TestEnrollRefusesBeforeItAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tc := range map[string]struct {
		bend func(*daemon.EnrollRequest)
		want string
	}{
		"plain http outside loopback": {func(r *daemon.EnrollRequest) { r.HubURL = "http://hub.example.com" }, "plain http is accepted on loopback only"},
		"no URL":                      {func(r *daemon.EnrollRequest) { r.HubURL = "hub" }, "must be a URL"},
		"no URL at all":               {func(r *daemon.EnrollRequest) { r.HubURL = "http://\x00" }, "must be a URL"},
		"another scheme":              {func(r *daemon.EnrollRequest) { r.HubURL = "ftp://127.0.0.1" }, "https://"},
		"credentials":                 {func(r *daemon.EnrollRequest) { r.HubURL = "https://a:b@hub.example.com" }, "must not hold credentials"},
		"name that climbs":            {func(r *daemon.EnrollRequest) { r.Name = "../x" }, "enrol as this name"},
		"long name":                   {func(r *daemon.EnrollRequest) { r.Name = strings.Repeat("x", 300) }, "enrol as this name"},
		"control character":           {func(r *daemon.EnrollRequest) { r.Name = "a\x1b[31m" }, "enrol as this name"},
		"no token":                    {func(r *daemon.EnrollRequest) { r.Token = "" }, "CERTFERRY_JOIN_TOKEN"},
		"short fingerprint":           {func(r *daemon.EnrollRequest) { r.RootFingerprint = "ABCD" }, "40 hexadecimal digits"},
	} {
		req := w.request()
		tc.bend(&req)
		_, err := daemon.Enroll(t.Context(), w.cfg, "v1", req, w.env())
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if w.tokenUsed {
		t.Error("the hub was asked")
	}
	w.wantNothingStored()
}

func TestEnrollRefusesAnotherHub(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		bend func(*world, *apiv1.Registration)
		want string
	}{
		"other root key": {func(w *world, r *apiv1.Registration) {
			other, err := w.escrow.Public().Armor()
			w.must(err)
			r.RootKey = string(other)
		}, "this is another hub"},
		"no root key":    {func(_ *world, r *apiv1.Registration) { r.RootKey = "none" }, "read the hub's root key"},
		"other server":   {func(_ *world, r *apiv1.Registration) { r.Server = "web-2" }, "another server"},
		"plain http git": {func(_ *world, r *apiv1.Registration) { r.GitURL = "http://git.example.com/x.git" }, "plain http"},
		"no credential":  {func(_ *world, r *apiv1.Registration) { r.Credential = "" }, "lacks"},
	} {
		w := newWorld(t)
		w.register = func(r *apiv1.Registration) { tc.bend(w, r) }
		_, err := daemon.Enroll(t.Context(), w.cfg, "v1", w.request(), w.env())
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		w.wantNothingStored()
	}
}

func TestEnrollWithoutHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.server.Close()
	if _, err := daemon.Enroll(t.Context(), w.cfg, "v1", w.request(), w.env()); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("enrol: %v, want ErrUnreachable", err)
	}
	w.wantNothingStored()
}

func TestNewRefusesWhatSomebodyChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent()
	path := func(name string) string { return filepath.Join(w.cfg.StateDir, name) }
	identity, err := os.ReadFile(path("identity.json"))
	w.must(err)
	key, err := os.ReadFile(path("key.asc"))
	w.must(err)
	otherKey, err := w.escrow.Armor()
	w.must(err)
	for name, tc := range map[string]struct{ file, content, want string }{
		"other pinned root": {"identity.json", strings.Replace(string(identity), w.root.Fingerprint(), w.escrow.Fingerprint(), 1), "check root key"},
		"no root key":       {"identity.json", strings.Replace(string(identity), "BEGIN PGP", "BEGIN", 1), "read root key"},
		"other agent key":   {"key.asc", string(otherKey), "check agent key"},
		"no agent key":      {"key.asc", "none", "read agent key"},
		"other hub URL":     {"identity.json", strings.Replace(string(identity), `"hub_url": "http:`, `"hub_url": "ftp:`, 1), ""},
	} {
		w.must(os.WriteFile(path(tc.file), []byte(tc.content), 0o600))
		if _, err := daemon.New(w.cfg, w.env()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		w.must(errors.Join(os.WriteFile(path("identity.json"), identity, 0o600), os.WriteFile(path("key.asc"), key, 0o600)))
	}
	cfg := w.cfg
	cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if _, err := daemon.New(cfg, w.env()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing CA file: %v", err)
	}
	w.must(os.WriteFile(cfg.CAFile, []byte("none"), 0o600))
	if _, err := daemon.New(cfg, w.env()); err == nil || !strings.Contains(err.Error(), "no PEM certificate") {
		t.Errorf("empty CA file: %v", err)
	}
	w.must(os.WriteFile(cfg.CAFile, w.issue().ChainPEM(), 0o600))
	_, err = daemon.New(cfg, w.env())
	w.must(err)
}
