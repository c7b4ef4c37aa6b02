package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

func TestInitMakesAWholeHub(t *testing.T) {
	t.Parallel()
	cfg, made := initialised(t)
	err := filepath.WalkDir(cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(made.RootKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.ParsePrivateKey(root)
	if err != nil || key.Fingerprint() != made.RootFingerprint {
		t.Errorf("root key %v, %v", key, err)
	}
	if _, err := os.Stat(cfg.paths().unfinished()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the folder is still marked as unfinished")
	}
	report, err := VerifyStore(t.Context(), cfg, time.Now)
	if err != nil || len(report.Faults) != 0 || report.RepoID != made.RepoID {
		t.Errorf("report %+v, %v", report, err)
	}
	// Without the root key, which is offline by now, the hub works.
	if err := os.Remove(made.RootKey); err != nil {
		t.Fatal(err)
	}
	_, _, log, stop := running(t, cfg)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "root key is still on this machine") {
		t.Error("warned of a root key that is gone")
	}
}

func TestInitTouchesNothingThatIsThere(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	before, err := os.ReadFile(cfg.paths().keyring())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), cfg, time.Now); err == nil || !strings.Contains(err.Error(), "never replaced") {
		t.Errorf("second init: %v", err)
	}
	if after, err := os.ReadFile(cfg.paths().keyring()); err != nil || !bytes.Equal(before, after) {
		t.Error("the keyring changed")
	}

	used := newConfig(t)
	if err := os.MkdirAll(used.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(used.DataDir, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), used, time.Now); err == nil || !strings.Contains(err.Error(), `is not empty (it holds "letter")`) {
		t.Errorf("init in a folder in use: %v", err)
	}

	elsewhere := newConfig(t)
	elsewhere.SigningKey = filepath.Join(t.TempDir(), "signing.key")
	if err := os.WriteFile(elsewhere.SigningKey, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), elsewhere, time.Now); err == nil || !strings.Contains(err.Error(), "never replaced") {
		t.Errorf("init over a key: %v", err)
	}

	file := newConfig(t)
	if err := os.WriteFile(file.DataDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), file, time.Now); err == nil {
		t.Error("init in a file: no error")
	}
	if _, err := Init(t.Context(), Config{DataDir: "relative"}, time.Now); err == nil {
		t.Error("init with a bad configuration: no error")
	}
}

func TestInitThatDidNotFinishIsSaid(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Init(ctx, cfg, time.Now); err == nil || !strings.Contains(err.Error(), "remove the folder") {
		t.Fatalf("interrupted init: %v", err)
	}
	for name, open := range map[string]func() error{
		"serve": func() error { _, err := New(t.Context(), cfg, options(io.Discard, io.Discard)); return err },
		"user":  func() error { _, err := OpenAdmin(t.Context(), cfg, time.Now); return err },
		"store": func() error { _, err := VerifyStore(t.Context(), cfg, time.Now); return err },
	} {
		if err := open(); err == nil || !strings.Contains(err.Error(), "did not come to its end") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(t.Context(), newConfig(t), options(io.Discard, io.Discard)); err == nil || !strings.Contains(err.Error(), "certferry-hub init") {
		t.Errorf("no hub: %v", err)
	}
}

func TestVerifyStoreFindsDamage(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	full := cfg
	if err := full.Complete(); err != nil {
		t.Fatal(err)
	}
	k, err := loadKeys(&full, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store, err := openStore(&full, k, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	head, _ := store.Repo().Ref(manifest.MainBranch)
	person := gitrepo.Person{Name: "Somebody", Email: "somebody@example.com"}
	_, err = store.Repo().Apply(t.Context(), []gitrepo.Update{{
		Ref: manifest.MainBranch, Base: head, Parents: []gitrepo.Hash{head}, Author: person, Committer: person, Message: "slip",
		Edits: []gitrepo.Edit{{Path: "certificates/broken.yaml", Data: []byte("what: ever\n")}},
	}}, nil)
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	report, err := VerifyStore(t.Context(), cfg, time.Now)
	if err != nil || len(report.Faults) != 1 || !strings.Contains(report.Faults[0], "certificates/broken.yaml") {
		t.Errorf("report %+v, %v", report, err)
	}
	if _, err := VerifyStore(t.Context(), Config{DataDir: "relative"}, time.Now); err == nil {
		t.Error("bad configuration: no error")
	}
}

func TestExportedKeysCheckCommitsAndOpenBundles(t *testing.T) {
	t.Parallel()
	cfg, made := initialised(t)
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	public, err := ExportPublicKeys(cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	root, err := seal.ParsePublicKey(public.Root)
	if err != nil || root.Fingerprint() != made.RootFingerprint {
		t.Errorf("root: %v", err)
	}
	signing, err := seal.ParsePublicKey(public.Signing)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := ExportEscrowSecret(cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	escrow, err := seal.ParsePrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := seal.ParsePublicKey(public.Escrow); err != nil || other.Fingerprint() != escrow.Fingerprint() {
		t.Error("the escrow keys are not a pair")
	}
	k, err := loadKeys(&cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store, err := openStore(&cfg, k, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	snapshot, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if got := snapshot.Issuers[DefaultIssuer]; got == nil || got.Type != "privateca" {
		t.Errorf("default issuer: %+v", got)
	}
	h, err := gitrepo.ParseHash(snapshot.Commit)
	if err != nil {
		t.Fatal(err)
	}
	commit, err := store.Repo().Commit(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Verify("", commit.Payload, []byte(commit.Signature), []*seal.PublicKey{signing}, time.Now()); err != nil {
		t.Error(err)
	}
	if commit.Committer.Email != "hub@127.0.0.1" {
		t.Errorf("committer %+v", commit.Committer)
	}
	empty := newConfig(t)
	if _, err := ExportPublicKeys(empty, time.Now()); err == nil {
		t.Error("no hub: no error")
	}
	if _, err := ExportEscrowSecret(empty, time.Now()); err == nil {
		t.Error("no hub: no error")
	}
}
