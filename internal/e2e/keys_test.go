package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/hub/apiv1"
)

// TestANewKeyReachesAgentsByItself replaces the hub's signing key, by a root key that is on another machine, and then
// both of its keys after a theft. The agents run on meanwhile, and nobody touches them.
func TestANewKeyReachesAgentsByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "rollout_waves: [100%]\n")
	program := filepath.Join(bin, "certferry-hub")
	safe := filepath.Join(w.dir, "safe")
	if err := os.Mkdir(safe, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(w.dir, "hub", "keys", "root.key"), filepath.Join(safe, "root.key")); err != nil {
		t.Fatal(err)
	}
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

	next := filepath.Join(w.dir, "hub", "keys", "next", "keyring.json")
	for version, flags := range [][]string{1: nil, 2: {"--compromised"}} {
		if version == 0 {
			continue
		}
		w.hub.stop()
		w.do("", program, append([]string{"--config", w.config, "key", "rotate"}, flags...)...)
		w.do("", program, "key", "sign-keyring", "--root-key", filepath.Join(safe, "root.key"), next)
		w.do("", program, "--config", w.config, "key", "install", next, next+".sig")
		w.serve(bin)
		for _, s := range sites {
			w.await(s.name+" to take the new keyring", func() bool { return s.keyring() == uint64(version)+1 })
			if got := s.seen(); got != leaf {
				t.Errorf("%s serves %.12s after the new keyring, want %.12s", s.name, got, leaf)
			}
		}
		w.renew("shop") // opens nothing of before; what is new is signed by the new key alone
		leaf = w.deployed("shop", leaf, sites...)
	}
	if out := w.do("", program, "--config", w.config, "key", "ls"); strings.Count(out, "former") != 3 {
		t.Errorf("former keys:\n%s", out)
	}
	// What was issued under the first keys comes back from the hub's own copies.
	if _, err := w.client.RollbackCertificate(t.Context(), "shop", apiv1.RollbackRequest{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	w.deployed("shop", leaf, sites...)
	w.hub.stop()
	if out := w.do("", program, "--config", w.config, "store", "verify"); !strings.Contains(out, "faults        0") {
		t.Errorf("store verify:\n%s", out)
	}
}

// keyring is the version of the newest keyring that the agent saw.
func (s *server) keyring() uint64 {
	s.w.t.Helper()
	var floor struct {
		KeyringVersion uint64 `json:"keyring_version"`
	}
	data, err := os.ReadFile(filepath.Join(s.w.dir, s.name, "state", "floor.json"))
	if err == nil {
		err = json.Unmarshal(data, &floor)
	}
	if err != nil {
		s.w.t.Fatal(err)
	}
	return floor.KeyringVersion
}
