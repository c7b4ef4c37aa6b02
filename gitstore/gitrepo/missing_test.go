package gitrepo_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// checkPack sends what is missing into a fresh repository that has the haves, and lets git judge.
func checkPack(t *testing.T, r *gitrepo.Repo, wants, haves []gitrepo.Hash, depth int) (objects, shallow []gitrepo.Hash) {
	t.Helper()
	dir := t.TempDir()
	runGit(t, dir, "init", "-q", "--bare", "-b", "main", dir)
	send := func(wants, haves []gitrepo.Hash, depth int) {
		t.Helper()
		var err error
		if objects, shallow, err = r.Missing(wants, haves, depth); err != nil {
			t.Fatal(err)
		}
		seen := slices.Clone(objects)
		slices.SortFunc(seen, func(a, b gitrepo.Hash) int { return bytes.Compare(a[:], b[:]) })
		if len(slices.Compact(seen)) != len(objects) {
			t.Error("an object is listed twice")
		}
		var pack bytes.Buffer
		if err := r.WritePack(&pack, objects); err != nil {
			t.Fatal(err)
		}
		if len(shallow) > 0 {
			var lines strings.Builder
			for _, h := range shallow {
				fmt.Fprintln(&lines, h)
			}
			write(t, dir, "shallow", lines.String())
		}
		if out, err := tryGit(t, dir, pack.Bytes(), "index-pack", "--stdin", "--strict"); err != nil {
			t.Fatalf("git index-pack: %v\n%s", err, out)
		}
	}
	if len(haves) > 0 {
		send(haves, nil, 0)
	}
	send(wants, haves, depth)
	for i, h := range wants {
		runGit(t, dir, "update-ref", fmt.Sprintf("refs/heads/w%d", i), h.String())
	}
	runGit(t, dir, "symbolic-ref", "HEAD", "refs/heads/w0")
	fsck(t, dir)
	return objects, shallow
}

// TestMissingLinear lets git judge what clients in many states are sent.
func TestMissingLinear(t *testing.T) {
	t.Parallel()
	r := openRepo(t, t.TempDir())
	var c []gitrepo.Hash
	for i := range 6 {
		c = append(c, put(t, r, mainRef, fmt.Sprint(i), "a", fmt.Sprintf("v%d", i%2), "d/b", "same", "d/c", fmt.Sprint(i)))
	}
	tests := []struct {
		name         string
		wants, haves []gitrepo.Hash
		depth        int
		objects      int
		shallow      []gitrepo.Hash
	}{
		// A commit brings itself, two trees and d/c; there are two versions of a and one of d/b.
		{"all", c[5:], nil, 0, 6*4 + 3, nil},
		{"nothing new", c[5:], c[5:], 0, 0, nil},
		{"one step", c[5:], c[4:5], 0, 5, nil},
		// Only a shallow client asks for the past of what it has.
		{"going back", c[2:3], c[5:], 0, 3*4 + 1, nil},
		{"tip only", c[5:], nil, 1, 6, c[5:]},
		{"two deep", c[5:], nil, 2, 6 + 5, c[4:5]},
		{"deeper than the history", c[5:], nil, 99, 6*4 + 3, nil},
		{"tip only, from the former", c[5:], c[4:5], 1, 5, c[5:]},
		{"two wants", []gitrepo.Hash{c[5], c[3]}, nil, 1, 6 + 4, []gitrepo.Hash{c[5], c[3]}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, shallow := checkPack(t, r, tt.wants, tt.haves, tt.depth)
			if len(objects) != tt.objects {
				t.Errorf("%d objects, want %d", len(objects), tt.objects)
			}
			if diff := cmp.Diff(tt.shallow, shallow); diff != "" {
				t.Errorf("shallow (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("deepening", func(t *testing.T) {
		// The client has c[5] as a shallow clone and asks for two more commits: it must get c[4] and c[3].
		objects, shallow, err := r.Missing(c[5:], c[5:], 3)
		if err != nil || !slices.Contains(objects, c[4]) || !slices.Contains(objects, c[3]) || slices.Contains(objects, c[2]) {
			t.Errorf("objects %v, %v", objects, err)
		}
		if diff := cmp.Diff(c[3:4], shallow); diff != "" {
			t.Errorf("shallow (-want +got):\n%s", diff)
		}
	})
	t.Run("a file of the past comes again", func(t *testing.T) {
		// A shallow client at c[4] has never seen version 1 of a, although c[3] held it.
		objects, _, err := r.Missing(c[5:], c[4:5], 0)
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.Stat(c[5], "a")
		if err != nil || !slices.Contains(objects, e.Hash) {
			t.Errorf("version 1 of a is not sent: %v", err)
		}
	})
}

// TestMissingWithMerges does the same with a history that forks.
func TestMissingWithMerges(t *testing.T) {
	t.Parallel()
	r := openRepo(t, t.TempDir())
	base := put(t, r, mainRef, "base", "a", "0")
	left := put(t, r, mainRef, "left", "a", "1")
	side := gitrepo.Update{
		Ref: "refs/heads/side", Base: base, Parents: []gitrepo.Hash{base}, Author: ada, Committer: hub, Message: "side",
		Edits: []gitrepo.Edit{{Path: "b", Data: []byte("2")}},
	}
	hashes, err := r.Apply(t.Context(), []gitrepo.Update{side}, nil)
	if err != nil {
		t.Fatal(err)
	}
	u := update(r, mainRef, "merge", "b", "2")
	u.Parents = append(u.Parents, hashes[0])
	if hashes, err = r.Apply(t.Context(), []gitrepo.Update{u}, nil); err != nil {
		t.Fatal(err)
	}
	objects, _ := checkPack(t, r, hashes, []gitrepo.Hash{left}, 0)
	if slices.Contains(objects, base) || slices.Contains(objects, left) || !slices.Contains(objects, u.Parents[1]) {
		t.Errorf("objects %v", objects)
	}
	if objects, shallow := checkPack(t, r, hashes, nil, 2); slices.Contains(objects, base) || len(shallow) != 2 {
		t.Errorf("depth 2: objects %v, shallow %v", objects, shallow)
	}
}
