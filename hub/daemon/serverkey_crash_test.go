//go:build failpoints

package daemon

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/database"
)

// TestKilledWithTheKeyOnAServer kills a hub with SIGKILL at each step from the question for a certificate request to the
// publication of the certificate. The next hub issues it for the same request, once.
func TestKilledWithTheKeyOnAServer(t *testing.T) {
	t.Parallel()
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv("CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	for _, point := range []string{
		"hub.csr.asked", "hub.issue.ordered", "hub.issue.received", "hub.issue.sealed", "hub.commit.packed", "hub.commit.recorded",
		"hub.commit.moved", "hub.issue.done", "hub.publish.packed", "hub.publish.moved",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			for range rounds {
				killWithKeyOnServer(t, point)
			}
		})
	}
}

func killWithKeyOnServer(t *testing.T, point string) {
	t.Helper()
	cfg, _ := initialised(t)
	prepareCrash(t, &cfg)
	moveKeyToServer(t, &cfg)
	if point == "hub.csr.asked" {
		if err := child(t, cfg.DataDir, point); !killed(err) {
			t.Fatalf("the hub was not killed at %s: %v", point, err)
		}
	}
	must(t, child(t, cfg.DataDir, ""))
	spki := answerAsWeb1(t, &cfg)
	if point != "hub.csr.asked" {
		if err := child(t, cfg.DataDir, point); !killed(err) {
			t.Fatalf("the hub was not killed at %s: %v", point, err)
		}
	}
	before := stateAfterCrash(t, &cfg)
	must(t, child(t, cfg.DataDir, ""))
	after := stateAfterCrash(t, &cfg)
	if after.leaf == "" || after.served != after.leaf || strings.Join(after.jobs, " ") != "done" {
		t.Errorf("after recovery: %+v", after)
	}
	if before.leaf != "" && before.leaf != after.leaf {
		t.Error("a certificate that stood on main was ordered again")
	}
	if got := issuedKey(t, &cfg); got != spki {
		t.Errorf("issued for key %s, want the server's %s", got, spki)
	}
	report, err := VerifyStore(t.Context(), cfg, time.Now)
	if err != nil || len(report.Faults) > 0 {
		t.Errorf("store: %+v, %v", report, err)
	}
}

// stoppedStore opens the stopped hub's repository.
func stoppedStore(t *testing.T, cfg *Config, do func(*gitstore.Store)) {
	t.Helper()
	k, err := loadKeys(cfg, time.Now())
	must(t, err)
	store, err := openStore(cfg, k, time.Now, nil)
	must(t, err)
	do(store)
	must(t, store.Close())
}

func moveKeyToServer(t *testing.T, cfg *Config) {
	t.Helper()
	wish, err := (&manifest.Certificate{
		Name: "example.com", Names: []string{"example.com"}, Issuer: DefaultIssuer, KeyCustody: manifest.CustodyServer,
		Deployments: []manifest.Placement{{Server: "web-1", Deployer: "nginx", Target: "web"}},
	}).Encode()
	must(t, err)
	stoppedStore(t, cfg, func(store *gitstore.Store) {
		_, err := store.Apply(t.Context(), gitstore.Change{Subject: "move the key", Edits: []gitrepo.Edit{{Path: manifest.CertificatePath("example.com"), Data: wish}}})
		must(t, err)
	})
}

func issuedKey(t *testing.T, cfg *Config) (spki string) {
	t.Helper()
	stoppedStore(t, cfg, func(store *gitstore.Store) {
		snapshot, err := store.Snapshot()
		must(t, err)
		spki = snapshot.Issued["example.com"].SPKISHA256
	})
	return spki
}

// answerAsWeb1 sends web-1's request to the stopped hub, and returns the hash of its key.
func answerAsWeb1(t *testing.T, cfg *Config) string {
	t.Helper()
	db, err := database.Open(t.Context(), cfg.paths().database(), time.Now)
	must(t, err)
	asked, err := db.AskedCSRs(t.Context(), "web-1")
	if err != nil || len(asked) != 1 {
		t.Fatalf("web-1 is asked for %+v, %v", asked, err)
	}
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	must(t, err)
	asked[0].CSR, err = bundle.NewCSR(key, asked[0].Names)
	must(t, err)
	asked[0].SPKISHA256, err = bundle.KeySHA256(key.Public())
	must(t, err)
	err = db.AnswerCSR(t.Context(), asked[0], hub.AuditEvent{Action: "test"})
	must(t, errors.Join(err, db.Close()))
	return asked[0].SPKISHA256
}
