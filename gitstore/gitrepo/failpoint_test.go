//go:build failpoints

package gitrepo_test

import "testing"

// TestKillAtFailpoints kills the writer exactly between two steps of a commit; the third commit is the victim.
func TestKillAtFailpoints(t *testing.T) {
	t.Parallel()
	for point, want := range map[string]struct{ recorded, moved, commits int }{
		"hub.commit.packed":   {2, 2, 2},
		"hub.commit.recorded": {3, 2, 2},
		"hub.commit.moved":    {3, 2, 3},
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for round := range 20 {
				recorded, moved := killWriter(t, dir, []string{"CERTFERRY_FAILPOINT=" + point + ":3"}, 0)
				n := checkAfterKill(t, dir, recorded, moved)
				base := n - want.commits
				if recorded != base+want.recorded || moved != base+want.moved || base != round*want.commits {
					t.Fatalf("round %d: recorded %d, acknowledged %d, found %d", round, recorded, moved, n)
				}
			}
			fsck(t, dir)
		})
	}
}
