package gitrepo_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// TestStoredFiles writes files that are not compressed, around the size of a block; git must read them.
func TestStoredFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	var tip gitrepo.Hash
	sizes := []int{1, 255, 256, 0xfffe, 0xffff, 0x10000, 0x1fffe, 0x1ffff, 300_000}
	for _, n := range sizes {
		tip = put(t, r, mainRef, "add", fmt.Sprintf("f%d.pgp", n), strings.Repeat("0123456789abcdef", n/16+1)[:n])
	}
	got := files(t, r, tip, "")
	for _, n := range sizes {
		name := fmt.Sprintf("f%d.pgp", n)
		if len(got[name]) != n {
			t.Errorf("%s holds %d bytes", name, len(got[name]))
		}
		if size := runGit(t, dir, "cat-file", "-s", "main:"+name); size != fmt.Sprint(n) {
			t.Errorf("git: %s holds %s bytes", name, size)
		}
	}
	fsck(t, dir)
}
