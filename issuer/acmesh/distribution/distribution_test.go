package distribution_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/issuer/acmesh/distribution"
)

// files are those of a small program that stands in for acme.sh.
var files = map[string]string{"acme.sh": "#!/bin/sh\nVER=9.9\n", "dnsapi/dns_a.sh": "a\n", "dnsapi/dns_b.sh": "b\n"}

func sums() distribution.Sums {
	out := distribution.Sums{}
	for name, text := range files {
		out[name] = sha256.Sum256([]byte(text))
	}
	return out
}

type entry struct {
	name, text string
	kind       byte
}

func archive(tb testing.TB, zipped bool, entries ...entry) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o777, Size: int64(len(e.text)), Typeflag: tar.TypeReg}
		if e.kind != 0 {
			h.Typeflag, h.Size, h.Linkname = e.kind, 0, e.text
		}
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(e.text)); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	if !zipped {
		return out.Bytes()
	}
	var small bytes.Buffer
	z := gzip.NewWriter(&small)
	_, err := z.Write(out.Bytes())
	if err := errors.Join(err, z.Close()); err != nil {
		tb.Fatal(err)
	}
	return small.Bytes()
}

func good(prefix string) []entry {
	var out []entry
	for name, text := range files {
		out = append(out, entry{name: prefix + name, text: text})
	}
	return append(out, entry{name: prefix + "deploy/evil.sh", text: "no part of it"}, entry{name: prefix + "../../slip", text: "x"})
}

func TestInstall(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"archive of a commit": archive(t, true, good("acme.sh-123/")...),
		"git archive":         archive(t, false, good("")...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "lib", "acme.sh")
			for range 2 { // the second replaces the first
				if err := sums().Install(bytes.NewReader(data), dir); err != nil {
					t.Fatal(err)
				}
			}
			if err := sums().Verify(dir); err != nil {
				t.Error(err)
			}
			entries, err := os.ReadDir(dir)
			beside, errBeside := os.ReadDir(filepath.Dir(dir))
			if err != nil || errBeside != nil || len(entries) != 2 || len(beside) != 1 {
				t.Errorf("%v beside %v, %v %v", entries, beside, err, errBeside)
			}
			for path, mode := range map[string]os.FileMode{"": 0o755, "acme.sh": 0o555, "dnsapi": 0o755, "dnsapi/dns_a.sh": 0o444} {
				if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != mode {
					t.Errorf("%s: %v %v", path, info.Mode(), err)
				}
			}
			if version, err := distribution.Version(filepath.Join(dir, "acme.sh")); version != "9.9" || err != nil {
				t.Error(version, err)
			}
		})
	}
}

func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	whole := archive(t, true, good("")...)
	for name, c := range map[string]struct {
		data  []byte
		there string
		want  string
	}{
		"changed":     {archive(t, true, append(good("a/"), entry{name: "acme.sh", text: "#!/bin/sh\nrm -rf /\n"})...), "", "changed: acme.sh"},
		"missing":     {archive(t, true, good("a/")[:2]...), "", "missing: "},
		"twice":       {archive(t, false, append(good("a/"), good("b/")...)...), "", "exists"},
		"link":        {archive(t, true, entry{name: "acme.sh", text: "/etc/passwd", kind: tar.TypeSymlink}), "", "missing: "},
		"cut short":   {whole[:len(whole)-20], "", "read archive"},
		"no archive":  {[]byte(strings.Repeat("<html>not found</html>", 100)), "", "read archive"},
		"empty":       {nil, "", "missing: "},
		"too big":     {archive(t, true, entry{name: "acme.sh", text: strings.Repeat("x", 5<<20)}), "", "more than"},
		"other files": {whole, "passwd", "passwd is there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "acme.sh")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			kept := "acme.sh"
			if c.there != "" {
				kept = c.there
			}
			if err := os.WriteFile(filepath.Join(dir, kept), []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := sums().Install(bytes.NewReader(c.data), dir)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if text, err := os.ReadFile(filepath.Join(dir, kept)); string(text) != "before" {
				t.Errorf("what was there is gone: %q %v", text, err)
			}
			if beside, err := os.ReadDir(filepath.Dir(dir)); len(beside) != 1 {
				t.Errorf("left behind: %v %v", beside, err)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "acme.sh")
	if err := sums().Install(bytes.NewReader(archive(t, true, good("")...)), dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "dnsapi/dns_b.sh"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dnsapi/dns_b.sh"), []byte("b\ncurl evil\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sums().Verify(dir, "acme.sh", "dnsapi/dns_a.sh"); err != nil {
		t.Errorf("a hook that is not used costs the others: %v", err)
	}
	var changed *distribution.ChangedError
	if err := sums().Verify(dir); !errors.As(err, &changed) || len(changed.Files) != 1 || changed.Files[0] != "dnsapi/dns_b.sh" {
		t.Error(err)
	}
	if err := sums().Verify(dir, "dnsapi/dns_own.sh"); !errors.As(err, &changed) || len(changed.Unknown) != 1 {
		t.Error(err)
	}
	if err := sums().Verify(filepath.Join(dir, "none")); !errors.As(err, &changed) || len(changed.Missing) != 3 {
		t.Error(err)
	}
}

func TestDownload(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/good" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(archive(t, true, good("")...))
	}))
	defer srv.Close()
	data, err := distribution.Download(t.Context(), srv.Client(), srv.URL+"/good")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sums().Install(data, filepath.Join(t.TempDir(), "a")), data.Close()); err != nil {
		t.Error(err)
	}
	if _, err := distribution.Download(t.Context(), srv.Client(), srv.URL+"/bad"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}

// TestPublished holds the sums against the real program, where it is at hand.
func TestPublished(t *testing.T) {
	t.Parallel()
	if n := len(distribution.Published()); n < 150 {
		t.Fatalf("%d files", n)
	}
	script := os.Getenv("ACME_SH")
	if script == "" {
		t.Skip("ACME_SH is not set: its files cannot be held against the sums")
	}
	if err := distribution.Published().Verify(filepath.Dir(script)); err != nil {
		t.Error(err)
	}
	if version, err := distribution.Version(script); version == "" || err != nil {
		t.Error(version, err)
	}
}

func TestParseSums(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("ab", 32) + "  acme.sh\n"
	for _, text := range []string{line + line, "ab  acme.sh\n", strings.Repeat("ab", 32) + "  ../x\n", strings.Repeat("ab", 32) + "  /x\n", "\n", strings.Repeat("zz", 32) + "  x\n"} {
		if _, err := distribution.ParseSums(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func FuzzInstall(f *testing.F) {
	f.Add(archive(f, true, good("a/")...))
	f.Add(archive(f, false, good("")...))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := filepath.Join(t.TempDir(), "a")
		err := sums().Install(bytes.NewReader(data), dir)
		if _, statErr := os.Stat(dir); (err == nil) != (statErr == nil) {
			t.Errorf("%v, but %v", err, statErr)
		}
		if beside, _ := os.ReadDir(filepath.Dir(dir)); len(beside) > 1 {
			t.Errorf("left behind: %v", beside)
		}
	})
}
