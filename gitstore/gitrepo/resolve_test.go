package gitrepo_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// TestResolve finds commits by their first digits, and only commits.
func TestResolve(t *testing.T) {
	t.Parallel()
	r := openRepo(t, t.TempDir())
	hashes := map[string]gitrepo.Hash{}
	for _, name := range []string{"a", "b", "c"} {
		hashes[name] = put(t, r, "refs/heads/"+name, "add "+name, name, name)
	}
	for name, want := range hashes {
		for _, n := range []int{7, 12, 40} {
			if got, err := r.Resolve(want.String()[:n]); err != nil || got != want {
				t.Errorf("%s by %d digits: got %s, %v, want %s", name, n, got, err, want)
			}
		}
	}
	c, err := r.Commit(hashes["a"])
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]error{
		c.Tree.String():          fs.ErrNotExist,
		"0000000":                fs.ErrNotExist,
		hashes["a"].String()[:6]: gitrepo.ErrInvalid,
		"zzzzzzz":                gitrepo.ErrInvalid,
		"HEAD~1^":                gitrepo.ErrInvalid,
		"":                       gitrepo.ErrInvalid,
	} {
		if got, err := r.Resolve(text); !errors.Is(err, want) {
			t.Errorf("%q: got %s, %v, want %v", text, got, err, want)
		}
	}
}
