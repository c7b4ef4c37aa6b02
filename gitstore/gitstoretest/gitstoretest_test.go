package gitstoretest_test

import (
	"bytes"
	"compress/zlib"
	"io"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitstoretest"
)

const ref = "refs/heads/servers/web-1"

// TestHonestRemote is the control of all attacks: what is not bent is read by this program and by stock git.
func TestHonestRemote(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{"manifest.json": []byte("{}\n"), "bundles/www.pgp": []byte("sealed"), "bundles.txt": nil}
	server := httptest.NewServer(gitstoretest.Honest(ref, files))
	t.Cleanup(server.Close)
	r := &gitrepo.Remote{URL: server.URL + "/git/x.git", Limits: gitrepo.DefaultLimits}
	tip, err := r.Poll(t.Context(), ref, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Fetch(t.Context(), ref, tip.Hash)
	if err != nil || len(got.Files) != 3 || string(got.Files["bundles/www.pgp"]) != "sealed" {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIP: git is not installed")
	}
	dir := t.TempDir()
	clone := exec.CommandContext(t.Context(), "git", "-c", "transfer.fsckObjects=true", "clone", "-q", "--branch", "servers/web-1", server.URL+"/git/x.git", dir)
	clone.Env = append(clone.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0")
	if out, err := clone.CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v\n%s", err, out)
	}
	show := exec.CommandContext(t.Context(), "git", "-C", dir, "show", "HEAD:bundles/www.pgp")
	if out, err := show.CombinedOutput(); err != nil || string(out) != "sealed" {
		t.Errorf("git show: %v\n%s", err, out)
	}
	if found, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(found) != 4 {
		t.Errorf("files %v, %v", found, err)
	}
}

// TestBombIsOne: the bomb is a good stream, so that it is refused for its size and not for a slip.
func TestBombIsOne(t *testing.T) {
	t.Parallel()
	z, err := zlib.NewReader(bytes.NewReader(gitstoretest.Zeros(70)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, z)
	if err != nil || n != 70<<20 {
		t.Errorf("inflated to %d bytes, %v", n, err)
	}
}

func TestCasesHaveNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range gitstoretest.Cases() {
		if c.Name == "" || seen[c.Name] || strings.TrimSpace(c.Name) != c.Name {
			t.Errorf("case %q", c.Name)
		}
		seen[c.Name] = true
	}
	if len(seen) < 22 {
		t.Errorf("%d cases", len(seen))
	}
}

func TestGrowthSeesWhatIsUsed(t *testing.T) {
	var kept []byte
	grown, ok := gitstoretest.Growth(func() {
		kept = make([]byte, 64<<20)
		for i := range kept {
			kept[i] = byte(i)
		}
	})
	if ok && grown < 32<<20 {
		t.Errorf("%d bytes, with %d in use", grown, len(kept))
	}
}
