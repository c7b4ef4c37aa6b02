package keystore

import (
	"crypto"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

type fixture struct {
	*testing.T

	dir string
	*Store
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{t, dir, s}
}

// key asks for a key and returns its hash.
func (f *fixture) key(id, certificate, reuse string, kind bundle.KeyType, at time.Time) string {
	f.Helper()
	signer, err := f.Key(Wish{ID: id, Certificate: certificate, Type: kind, Reuse: reuse}, at)
	if err != nil {
		f.Fatal(err)
	}
	return f.hash(signer)
}

func (f *fixture) hash(signer crypto.Signer) string {
	f.Helper()
	spki, err := bundle.KeySHA256(signer.Public())
	if err != nil {
		f.Fatal(err)
	}
	return spki
}

func (f *fixture) has(certificate, spki string) bool {
	f.Helper()
	signer, err := f.Find(certificate, spki)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Fatal(err)
	}
	return err == nil && f.hash(signer) == spki
}

func TestKeyIsTheSameForOneAsking(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if !f.Empty() {
		t.Error("a new folder is not empty")
	}
	first := f.key("1", "www", "", bundle.ECDSAP256, start)
	if f.Empty() || !f.has("www", first) {
		t.Error("the key is not on disk")
	}
	again, err := Open(f.dir) // as after a kill
	if err != nil {
		t.Fatal(err)
	}
	f.Store = again
	if got := f.key("1", "www", "", bundle.ECDSAP256, start); got != first {
		t.Error("the same asking got another key")
	}
	for name, got := range map[string]string{
		"another asking":                     f.key("2", "www", "", bundle.ECDSAP256, start),
		"another certificate":                f.key("1", "api", "", bundle.ECDSAP256, start),
		"another type":                       f.key("1", "www", "", bundle.ECDSAP384, start),
		"a key of another":                   f.key("3", "api", first, bundle.ECDSAP256, start),
		"a key to use again of another type": f.key("4", "www", first, bundle.ECDSAP384, start),
		"a key that is gone":                 f.key("5", "www", strings.Repeat("0", 64), bundle.ECDSAP256, start),
	} {
		if got == first {
			t.Errorf("%s: the same key", name)
		}
	}
	if got := f.key("6", "www", first, bundle.ECDSAP256, start); got != first {
		t.Error("the key that was to be used again is another one")
	}
	if f.has("api", first) || f.has("www", strings.Repeat("0", 64)) || f.has("www", "../../etc/passwd") {
		t.Error("a key that is not the certificate's was found")
	}
}

func TestFilesAreClosedToOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if err := os.Chmod(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f.dir); err != nil {
		t.Fatal(err)
	}
	spki := f.key("1", "www", "", bundle.ECDSAP256, start)
	for path, want := range map[string]fs.FileMode{f.dir: 0o700, filepath.Join(f.dir, spki+".json"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %o", path, info.Mode(), err, want)
		}
	}
}

func TestPruneKeepsWhatARollBackNeeds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	expired, kept, valid, waiting := f.key("1", "www", "", bundle.ECDSAP256, start), f.key("2", "www", "", bundle.ECDSAP256, start),
		f.key("3", "www", "", bundle.ECDSAP256, start), f.key("4", "www", "", bundle.ECDSAP256, start)
	day := 24 * time.Hour
	for spki, until := range map[string]time.Time{expired: start.Add(day), kept: start.Add(day), valid: start.Add(90 * day)} {
		if err := f.Used(spki, until); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Used(valid, start.Add(day)); err != nil { // an older certificate of the key, as after a roll back
		t.Fatal(err)
	}
	if err := f.Used(strings.Repeat("0", 64), start); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("use of a key that is not here: %v", err)
	}
	for _, step := range []struct {
		at   time.Time
		want []string
		gone []string
	}{
		{start.Add(day), []string{expired, kept, valid, waiting}, nil},
		{start.Add(2*day + time.Second), []string{kept, valid, waiting}, []string{expired}},
		{start.Add(91*day + time.Second), []string{kept, waiting}, []string{expired, valid}},
	} {
		if err := f.Prune(map[string]bool{kept: true}, step.at); err != nil {
			t.Fatal(err)
		}
		for _, spki := range step.want {
			if !f.has("www", spki) {
				t.Errorf("%s: key %s is gone", step.at, spki)
			}
		}
		for _, spki := range step.gone {
			if f.has("www", spki) {
				t.Errorf("%s: key %s is still here", step.at, spki)
			}
		}
	}
}

func TestAskingAgainAndAgainFillsNoDisk(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	used := f.key("used", "www", "", bundle.ECDSAP256, start)
	if err := f.Used(used, start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	other := f.key("other", "api", "", bundle.ECDSAP256, start)
	var all []string
	for i := range 3 * maxUnused {
		all = append(all, f.key(string(rune('a'+i)), "www", "", bundle.ECDSAP256, start.Add(time.Duration(i)*time.Second)))
	}
	for i, spki := range all {
		if want := i >= len(all)-maxUnused; f.has("www", spki) != want {
			t.Errorf("key %d of %d is here: %v", i, len(all), !want)
		}
	}
	if !f.has("www", used) || !f.has("api", other) {
		t.Error("a key in use, or another certificate's, is gone")
	}
}

func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	spki := f.key("1", "www", "", bundle.ECDSAP256, start)
	path := filepath.Join(f.dir, spki+".json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := f.key("2", "www", "", bundle.ECDSAP256, start)
	swapped, err := os.ReadFile(filepath.Join(f.dir, other+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty":       nil,
		"cut":         good[:len(good)/2],
		"behind":      append(append([]byte(nil), good...), "{}"...),
		"unknown key": []byte(strings.Replace(string(good), `"format"`, `"x": 1, "format"`, 1)),
		"newer":       []byte(strings.Replace(string(good), `"format": 1`, `"format": 2`, 1)),
		"another key": swapped,
		"large":       []byte(strings.Repeat(" ", maxSize) + string(good)),
		"no key":      []byte(`{"format":1,"certificate":"www","id":"1","made_at":"2026-11-23T12:00:00Z","key":"x"}`),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Find("www", spki); err == nil || errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The others go on, and what cannot be read is left for a person.
	if !f.has("www", other) || f.key("3", "www", "", bundle.ECDSAP256, start) == spki {
		t.Error("a damaged file stopped the others")
	}
	if err := f.Prune(nil, start.AddDate(10, 0, 0)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestNoRoomForAKey(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a file was opened as folder")
	}
	f := newFixture(t)
	if err := os.RemoveAll(f.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Key(Wish{ID: "1", Certificate: "www", Type: bundle.ECDSAP256}, start); err == nil {
		t.Error("a key that is not on disk was given out")
	}
	if err := f.Prune(nil, start); err == nil {
		t.Error("pruned without a folder")
	}
}

func FuzzDecode(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Key(Wish{ID: "1", Certificate: "www", Type: bundle.ECDSAP256}, start); err != nil {
		f.Fatal(err)
	}
	all, err := s.list()
	if err != nil || len(all) != 1 {
		f.Fatal(len(all), err)
	}
	data, err := os.ReadFile(s.path(all[0].spki))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := decode(data); err == nil && (got.signer == nil || len(got.spki) != 64) {
			t.Errorf("%+v", got)
		}
	})
}
