package gitrepo_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"strconv"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// branches makes a batch of n commits on n branches, each with a manifest and a bundle of 5 KiB.
func branches(tb testing.TB, r *gitrepo.Repo, n, generation int) []gitrepo.Update {
	tb.Helper()
	batch := make([]gitrepo.Update, n)
	for i := range batch {
		secret := make([]byte, 5<<10)
		if _, err := rand.Read(secret); err != nil {
			tb.Fatal(err)
		}
		batch[i] = update(r, fmt.Sprintf("refs/heads/servers/web-%d", i), fmt.Sprintf("deploy %d", generation),
			"manifest.json", fmt.Sprintf("%d %d", i, generation), "bundles/example.com.pgp", string(secret))
	}
	return batch
}

// BenchmarkCommit makes one commit on main, beside 10,000 other references.
func BenchmarkCommit(b *testing.B) {
	r := openRepo(b, b.TempDir())
	if _, err := r.Apply(b.Context(), branches(b, r, 10_000, 0), nil); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		n++
		put(b, r, mainRef, "commit", "certificates/a.yaml", strconv.Itoa(n))
	}
}

// BenchmarkApplyBranches makes a commit on each of many branches in one batch, unsigned.
func BenchmarkApplyBranches(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			r := openRepo(b, b.TempDir())
			generation := 0
			for b.Loop() {
				b.StopTimer()
				generation++
				batch := branches(b, r, n, generation)
				b.StartTimer()
				if _, err := r.Apply(b.Context(), batch, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkServeTip does the repository's part of an agent's fetch.
func BenchmarkServeTip(b *testing.B) {
	r := openRepo(b, b.TempDir())
	for generation := range 20 { // several packs
		if _, err := r.Apply(b.Context(), branches(b, r, 500, generation), nil); err != nil {
			b.Fatal(err)
		}
	}
	tip, _ := r.Ref("refs/heads/servers/web-7")
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			objects, _, err := r.Missing([]gitrepo.Hash{tip}, nil, 1)
			if err == nil {
				err = r.WritePack(io.Discard, objects)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpen checks a repository with 10,000 branches.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	r, err := gitrepo.Open(dir, testOptions())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := r.Apply(b.Context(), branches(b, r, 10_000, 0), nil); err != nil {
		b.Fatal(err)
	}
	closeRepo(b, r)
	for b.Loop() {
		r, err := gitrepo.Open(dir, testOptions())
		if err != nil {
			b.Fatal(err)
		}
		closeRepo(b, r)
	}
}
