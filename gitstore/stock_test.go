package gitstore_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew")

// story makes a small history of everything.
func story(t *testing.T, w *world, s *gitstore.Store) (server *seal.PrivateKey) {
	t.Helper()
	trailers := []gitstore.Trailer{
		{Key: gitstore.TrailerCertificate, Value: "example.com"},
		{Key: gitstore.TrailerRequestID, Value: "req-1"},
		{Key: gitstore.TrailerAuditHead, Value: strings.Repeat("ab", 32)},
	}
	_, err := s.Apply(t.Context(), gitstore.Change{
		Subject: "add certificate example.com", Actor: ada, Trailers: trailers,
		Body: "The shop moves to its own name.\r\nAsked for in \x1b[31mticket\x1b[0m 12.\n\nActor: somebody else",
		Edits: []gitrepo.Edit{
			certificateYAML(t, "example.com", "example.com"), issuerYAML(t, "internal"), serverYAML(t, "web-1", nil),
		},
	})
	w.must(err)
	server = w.key("web-1")
	publish(t, s, gitstore.ServerState{Server: "web-1", Key: server.Public()})
	w.pass(time.Minute)
	old := w.bundle(60, "example.com")
	issue(t, s, "example.com", old)
	good := publish(t, s, gitstore.ServerState{Server: "web-1", Key: server.Public(), Deployments: []gitstore.Wanted{want("example.com", old)}})
	w.pass(30 * 24 * time.Hour)
	renewed := w.bundle(90, "example.com")
	issue(t, s, "example.com", renewed)
	next := gitstore.ServerState{Server: "web-1", Key: server.Public(), Deployments: []gitstore.Wanted{want("example.com", renewed)}}
	publish(t, s, next)
	w.pass(time.Hour)
	hold := next
	hold.HoldCommit, hold.Actor = good.Commit, gitstore.Actor{Name: "Grace\n<root>", Email: "grace@example.com"}
	publish(t, s, hold)
	issue(t, s, "example.com", old)
	w.pass(26 * time.Hour)
	publish(t, s, hold)
	publish(t, s, next)
	return server
}

// TestLogReadsWell compares git log with golden files; what is random is masked.
func TestLogReadsWell(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	story(t, w, s)
	for _, branch := range []string{"main", "servers/web-1"} {
		out := run(t, w.dir, nil, "", "git", "log", "--date=iso-strict", "--format=%an <%ae> %ad, %cn%n%B----", "--stat=100", "--no-color", branch)
		out = regexp.MustCompile(`\b[0-9a-f]{40}\b`).ReplaceAllString(out, "COMMIT")
		out = regexp.MustCompile(`hold at [0-9a-f]{7}`).ReplaceAllString(out, "hold at COMMIT")
		out = regexp.MustCompile(`leaf [0-9a-f]{6}…`).ReplaceAllString(out, "leaf LEAF…")
		out = regexp.MustCompile(`(Bin )?\d+ -> \d+ bytes|\| +\d+ [+-]+| \d+ (insertion|deletion)s?\([+-]\),?`).ReplaceAllString(out, "")
		golden := filepath.Join("testdata", "log-"+strings.ReplaceAll(branch, "/", "-")+".golden")
		if *updateGolden {
			w.must(os.WriteFile(golden, []byte(out), 0o600))
		}
		want, err := os.ReadFile(golden)
		w.must(err)
		if diff := cmp.Diff(string(want), out); diff != "" {
			t.Errorf("git log %s (-want +got); run with -update if it is meant:\n%s", branch, diff)
		}
	}
}

// TestStockProgramsReadIt does what an operator with the exported keys can do: check commits and open bundles.
func TestStockProgramsReadIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	server := story(t, w, s)
	home := shortDir(t)
	env := []string{"GNUPGHOME=" + home}
	for _, key := range []interface{ Armor() ([]byte, error) }{w.hub.Public(), w.root.Public(), w.escrow, server} {
		armored, err := key.Armor()
		w.must(err)
		run(t, home, env, string(armored), "gpg", "--batch", "--quiet", "--import")
	}
	t.Cleanup(func() { run(t, home, env, "", "gpgconf", "--kill", "all") })
	if out := run(t, w.dir, nil, "", "git", "fsck", "--full", "--strict", "--no-progress"); strings.TrimSpace(out) != "" {
		t.Errorf("git fsck: %s", out)
	}
	for _, branch := range []string{"main", "servers/web-1"} {
		for commit := range strings.FieldsSeq(run(t, w.dir, nil, "", "git", "rev-list", branch)) {
			if out := run(t, w.dir, env, "", "git", "verify-commit", commit); !strings.Contains(out, "Good signature") {
				t.Errorf("git verify-commit: %s", out)
			}
		}
	}
	clone := filepath.Join(t.TempDir(), "clone")
	run(t, w.dir, nil, "", "git", "clone", "-q", "-b", "servers/web-1", w.dir, clone)
	for _, sealed := range []string{
		filepath.Join(clone, manifest.BundlePath("example.com")),
		exported(t, w, "main:"+manifest.IssuedDir("example.com")+"/bundle.pgp"),
	} {
		out := run(t, home, env, "", "gpg", "--batch", "--status-fd=1", "--decrypt", sealed)
		for _, part := range []string{"certferry-bundle-v1\n", "BEGIN CERTIFICATE", "BEGIN PRIVATE KEY", "GOODSIG"} {
			if !strings.Contains(out, part) {
				t.Errorf("gpg --decrypt %s: no %q in its output", filepath.Base(sealed), part)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(clone, manifest.File))
	w.must(err)
	signed := filepath.Join(home, "manifest")
	w.must(os.WriteFile(signed, append([]byte(manifest.SignatureDomain), text...), 0o600))
	run(t, home, env, "", "gpg", "--batch", "--verify", filepath.Join(clone, manifest.SignatureFile), signed)
}

// exported writes a file of the repository to disk.
func exported(t *testing.T, w *world, what string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	w.must(os.WriteFile(name, []byte(run(t, w.dir, nil, "", "git", "cat-file", "blob", what)), 0o600))
	return name
}

// shortDir makes a folder whose name is short enough for the sockets of gpg-agent.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpg") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestTrailers reads the trailers of messages with and without.
func TestTrailers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]gitstore.Trailer{
		"subject\n":                             nil,
		"subject\n\nbody without any\n":         nil,
		"subject\n\nA: 1\nB-c: 2: 3\n":          {{Key: "A", Value: "1"}, {Key: "B-c", Value: "2: 3"}},
		"subject\n\nbody\nX: 9\n\nA: 1\n":       {{Key: "A", Value: "1"}},
		"subject\n\nnot a trailer\nA: 1\n":      nil,
		"subject\n\nbad key: 1\n":               nil,
		"subject\n\nA: 1\n\nlast paragraph :\n": nil,
	} {
		if diff := cmp.Diff(want, gitstore.Trailers(text)); diff != "" {
			t.Errorf("trailers of %q (-want +got):\n%s", text, diff)
		}
	}
}
