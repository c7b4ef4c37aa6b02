package gitstore_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
)

// damagedStore makes a closed store of some packs and history, to be damaged, and returns its configuration.
func damagedStore(t *testing.T) gitstore.Config {
	t.Helper()
	p := newPair(t)
	issue(t, p.store, "example.com", p.bundle(30, "example.com"))
	p.live(t, 3, 1000*day)
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	return p.config(1)
}

func copyFolder(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// found opens a damaged store and says how the damage was found: at start, by verify, or not at all.
func found(t *testing.T, cfg gitstore.Config) string {
	t.Helper()
	s, err := gitstore.Open(cfg)
	if errors.Is(err, gitrepo.ErrCorrupt) {
		return "at start"
	}
	if err != nil {
		t.Errorf("open: %v, which does not say that the repository is damaged", err)
		return "at start"
	}
	defer func() { _ = s.Close() }() // it is damaged
	err = s.Repo().Verify(t.Context())
	switch {
	case errors.Is(err, gitrepo.ErrCorrupt):
		return "by verify"
	case err != nil:
		t.Error(err)
	}
	return ""
}

// TestByteFlips flips a byte of the repository's files at a time. Each is found when the store is opened, or by verify.
func TestByteFlips(t *testing.T) {
	t.Parallel()
	flips := flipCount(t)
	cfg := damagedStore(t)
	seed := rand.Uint64()
	how := map[string]int{}
	for i := range flips {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		dir := copyFolder(t, cfg.Dir)
		name := flip(t, dir, random)
		damaged := cfg
		damaged.Dir = dir
		when := found(t, damaged)
		how[when]++
		if when == "" {
			t.Errorf("seed %d, flip %d in %s: not found", seed, i, name)
		}
	}
	t.Logf("found: %v", how)
	if t.Failed() {
		return
	}
	t.Logf("FAULT store.byte-flips tried=%d survived=%d", flips, flips)
}

func flipCount(t *testing.T) int {
	t.Helper()
	if testing.Short() {
		return 40
	}
	return 200
}

// flip changes one byte of one file of the repository and returns the file's name.
func flip(t *testing.T, dir string, random *rand.Rand) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "objects/pack/pack-*"))
	if err != nil {
		t.Fatal(err)
	}
	// packed-refs is small, and the one file that no checksum covers.
	names = append(names, slices.Repeat([]string{filepath.Join(dir, "packed-refs")}, len(names)/2)...)
	name := names[random.IntN(len(names))]
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[random.IntN(len(data))] ^= byte(1 + random.IntN(255))
	if err := errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestLostNames damages the names of references in ways that keep packed-refs well-formed.
func TestLostNames(t *testing.T) {
	t.Parallel()
	cfg := damagedStore(t)
	for from, to := range map[string]string{
		"refs/heads/main\n":          "refs/heads/maim\n",
		"refs/heads/servers/web-1\n": "refs/heads/servers/web-9\n",
		"heads/servers/web-2\n":      "heads/sersers/web-2\n",
		"refs/heads/servers/web-2\n": "refs/heads/servers/WEB-2\n",
		"refs/heads/servers/web-1":   "refs/tags/v1",
	} {
		damaged := cfg
		damaged.Dir = copyFolder(t, cfg.Dir)
		path := filepath.Join(damaged.Dir, "packed-refs")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Replace(data, []byte(from), []byte(to), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := gitstore.Open(damaged); !errors.Is(err, gitrepo.ErrCorrupt) || !strings.Contains(err.Error(), "packed-refs") {
			t.Errorf("%q as %q: %v", from, to, err)
			if s != nil {
				_ = s.Close()
			}
		}
	}
}

// TestFlippedReferences changes each byte of packed-refs that can make the name of another reference, or none, of a
// line: each is found at start.
func TestFlippedReferences(t *testing.T) {
	t.Parallel()
	cfg := damagedStore(t)
	name := filepath.Join(cfg.Dir, "packed-refs")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for i := range data {
		for _, to := range []byte{'^', '#', data[i] ^ 1, data[i] ^ 0x20} {
			if to == data[i] || i > 0 && data[i-1] != '\n' && (to == '^' || to == '#') {
				continue
			}
			flipped := slices.Clone(data)
			flipped[i] = to
			if err := os.WriteFile(name, flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			tried++
			if when := found(t, cfg); when != "at start" {
				t.Errorf("byte %d from %q to %q: found %q", i, data[i], to, when)
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d changes found", tried)
}
