package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// TestKeysOfServersAreReplaced replaces a server's key in peace, by a word to the hub, and then after a theft: the thief
// is shut out, and every private key that the stolen one opened is replaced on all servers that use it.
func TestKeysOfServersAreReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "rollout_waves: [100%]\n")
	w.serve(bin)
	w.login()
	sites := []*server{w.site("site-1", "shop.test"), w.site("site-2", "shop.test")}
	for _, s := range sites {
		s.enrol(map[string]string{"role": "shop"})
		s.run(bin)
	}
	create(t, w, apiv1.CertificateSpec{
		Name: "shop", Names: []string{"shop.test"}, Issuer: "private-ca",
		Deployments: []apiv1.Placement{{Selector: "role=shop", Deployer: "files", Target: "site"}},
	})
	leaf := w.deployed("shop", "", sites...)
	one := sites[0]
	before := one.known(t)
	if _, err := w.client.RotateServerKey(t.Context(), "site-1", apiv1.RotateKeyRequest{}); err != nil {
		t.Fatal(err)
	}
	w.await("the new key", func() bool {
		known := one.known(t)
		return known.Fingerprint != before.Fingerprint && known.Generation > before.Generation && strings.Contains(one.status(), known.Fingerprint)
	})
	if got := one.seen(); got != leaf {
		t.Errorf("site-1 serves %.12s after its key was replaced, want %.12s", got, leaf)
	}
	w.renew("shop")
	leaf = w.deployed("shop", leaf, sites...)

	stolen := filepath.Join(w.dir, "stolen")
	if err := os.CopyFS(stolen, os.DirFS(filepath.Join(w.dir, "site-1"))); err != nil {
		t.Fatal(err)
	}
	w.do("", "chmod", "-R", "go-rwx", stolen)
	answer, err := w.client.RotateServerKey(t.Context(), "site-1", apiv1.RotateKeyRequest{Compromised: true, Reason: "disk sold"})
	if err != nil || !slices.Equal(answer.Certificates, []string{"shop"}) || answer.JoinToken == nil {
		t.Fatalf("blocked %+v, %v", answer, err)
	}
	one.daemon.stop()
	config := w.write("thief.yaml", strings.ReplaceAll("state_dir: DIR/state\npolicy: DIR/policy.yaml\n", "DIR", stolen))
	if out, err := w.try("", nil, filepath.Join(bin, "certferry-agent"), "--config", config, "once"); err == nil || !strings.Contains(out, "access denied") {
		t.Errorf("the thief still gets something: %v\n%s", err, out)
	}
	w.await("site-2 to get a new key", func() bool { return sites[1].seen() != leaf })

	w.do(answer.JoinToken.Token+"\n", filepath.Join(bin, "certferry-agent"), "--config", one.agent, "enroll",
		"--force", "--hub", w.url, "--name", "site-1", "--root-fingerprint", answer.JoinToken.RootFingerprint)
	if _, err := w.client.ApproveServer(t.Context(), "site-1", one.known(t).Fingerprint); err != nil {
		t.Fatal(err)
	}
	one.run(bin)
	w.deployed("shop", leaf, sites...)
	history, err := w.client.CertificateHistory(t.Context(), "shop", client.Page{Limit: 1})
	if err != nil || len(history.Items) != 1 {
		t.Fatalf("history %+v, %v", history, err)
	}
	commit, err := w.client.Commit(t.Context(), history.Items[0].Hash)
	if err != nil || !strings.Contains(commit.Body, "key of server site-1 replaced: disk sold") {
		t.Errorf("the renewal does not say why: %+v, %v", commit, err)
	}
}

// known is what the hub knows of the server.
func (s *server) known(t *testing.T) apiv1.Server {
	t.Helper()
	known, err := s.w.client.Server(t.Context(), s.name)
	if err != nil {
		t.Fatal(err)
	}
	return known
}

// status is what the agent says of itself.
func (s *server) status() string {
	out, _ := s.w.try("", nil, filepath.Join(bin, "certferry-agent"), "--config", s.agent, "status")
	return out
}
