package deploy_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deploy"
	"github.com/certferry/certferry/agent/internal/deployer/files"
	"github.com/certferry/certferry/agent/internal/policy"
	"github.com/certferry/certferry/gitstore/bundle"
)

// TestOutputsAreComparedByWhatTheyHold: a key store gets other bytes each time it is encoded, and is left alone for as long
// as it holds the same; so is one combined file.
func TestOutputsAreComparedByWhatTheyHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	policyFile := filepath.Join(dir, "policy.yaml")
	path := filepath.Join(dir, "site")
	if err := os.WriteFile(password, []byte("changeit\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, output := range map[string]string{
		"pkcs12":   fmt.Sprintf("keystore: {path: %s, format: pkcs12, passwordFile: %s}", path, password),
		"legacy":   fmt.Sprintf("keystore: {path: %s, format: pkcs12, passwordFile: %s, legacy: true}", path, password),
		"jks":      fmt.Sprintf("keystore: {path: %s, format: jks, passwordFile: %s, alias: site}", path, password),
		"combined": "combined: " + path,
	} {
		t.Run(name, func(t *testing.T) {
			text := "apiVersion: certferry/v1\nkind: Policy\ntargets: {web: {deployer: files, probe: {none: true}, " + output + "}}\n"
			if err := os.WriteFile(policyFile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			d, err := deploy.New(deploy.Config{
				StateDir: w.state(), Deployers: map[string]agent.Deployer{"files": files.New(nil)}, Prober: w, Now: time.Now,
				Policy: func() (*policy.Policy, error) { return policy.Load(policyFile) },
				Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			one := func(b *bundle.Bundle, want string) []byte {
				t.Helper()
				outcomes, err := d.Deploy(t.Context(), []agent.Deployment{deployment("web", b)})
				if err != nil || outcomes[0].State != agent.Deployed || !strings.HasPrefix(outcomes[0].Detail, want) {
					t.Fatalf("%+v, %v; want %q", outcomes, err, want)
				}
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return data
			}
			first := w.issue("web")
			written := one(first, "deployed")
			if again := one(first, "nothing had to change"); !bytes.Equal(written, again) {
				t.Error("the file was written again")
			}
			if next := one(w.issue("web"), "deployed"); bytes.Equal(written, next) {
				t.Error("the next certificate was not written")
			}
			old := deployment("web", w.ca.IssueAt(t, w.ca.Now.Add(-time.Hour), time.Hour*24, "web.test"))
			if outcomes, err := d.Deploy(t.Context(), []agent.Deployment{old}); err != nil || outcomes[0].State != agent.Refused {
				t.Errorf("an older certificate than that on disk: %+v, %v", outcomes, err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		})
	}
}
