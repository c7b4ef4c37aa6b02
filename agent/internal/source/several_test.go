package source_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// standIn is a remote that a test turns on and off.
type standIn struct {
	tip   gitrepo.Hash
	files map[string][]byte
	err   error
	wait  time.Duration
	asked int
}

func (r *standIn) Poll(context.Context, string, string) (gitrepo.Tip, error) {
	r.asked++
	return gitrepo.Tip{Hash: r.tip, RetryAfter: r.wait}, r.err
}

func (r *standIn) Fetch(context.Context, string, gitrepo.Hash) (*gitrepo.Snapshot, error) {
	return &gitrepo.Snapshot{Files: r.files}, r.err
}

// several is a hub's own remote and a mirror.
type several struct {
	*source.Source

	t           *testing.T
	own, mirror *standIn
	clock       time.Time
}

func newSeveral(t *testing.T, trust source.Trust) *several {
	t.Helper()
	s := &several{t: t, own: &standIn{tip: gitrepo.Hash{1}}, mirror: &standIn{tip: gitrepo.Hash{2}}, clock: start}
	s.Source = source.NewSeveral([]source.Named{
		{Name: "hub", Remote: s.own}, {Name: "backup", Mirror: true, Remote: s.mirror},
	}, trust, func() time.Time { return s.clock })
	return s
}

// from wants the next answer from one remote, after as many questions to each.
func (s *several) from(name string, own, mirror int) {
	s.t.Helper()
	s.own.asked, s.mirror.asked = 0, 0
	if _, _, err := s.Tip(s.t.Context()); err != nil || s.Current() != name || s.own.asked != own || s.mirror.asked != mirror {
		s.t.Fatalf("answer of %s, %d questions to the hub and %d to the mirror, %v; want %s, %d, %d", s.Current(), s.own.asked, s.mirror.asked, err, name, own, mirror)
	}
}

func TestRemotesInTurn(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, newHub(t).trust())
	if s.Len() != 2 {
		t.Errorf("%d remotes", s.Len())
	}
	s.from("hub", 1, 0)
	s.own.err = errors.New("down")
	s.from("backup", 1, 1)
	s.from("backup", 0, 1) // the hub is left alone for about a minute
	s.clock = s.clock.Add(73 * time.Second)
	s.from("backup", 1, 1)
	s.clock = s.clock.Add(73 * time.Second)
	s.from("backup", 0, 1) // and then for two
	s.mirror.err = errors.New("down as well")
	s.own.asked, s.mirror.asked = 0, 0
	if _, _, err := s.Tip(t.Context()); !errors.Is(err, source.ErrUnreachable) || !strings.Contains(err.Error(), "remote hub: down; ") && !strings.Contains(err.Error(), "remote backup: down as well") ||
		s.own.asked != 1 || s.mirror.asked != 1 {
		t.Errorf("both down: %v", err)
	}
	s.own.err = nil
	s.from("hub", 1, 0) // where nothing is well, all are tried in their order
	s.own.err = errors.New("down again")
	s.mirror.err = nil
	s.from("backup", 1, 1)
	s.own.err = nil
	s.clock = s.clock.Add(73 * time.Second) // its failures were forgotten when it answered
	s.from("hub", 1, 0)
	s.PassOver()
	s.from("backup", 0, 1)
}

// TestPatienceOfSeveral: who asks for patience is not asked, and one wait must not silence the others.
func TestPatienceOfSeveral(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, newHub(t).trust())
	s.own.err, s.own.wait = errors.New("503"), 30*time.Minute
	s.from("backup", 1, 1)
	s.mirror.err = errors.New("down")
	s.own.asked = 0
	if _, wait, err := s.Tip(t.Context()); err == nil || wait != 0 || s.own.asked != 0 {
		t.Errorf("wait %s for a mirror that did not ask for it, %d questions to the busy hub: %v", wait, s.own.asked, err)
	}
	s.mirror.wait = 10 * time.Minute
	if _, wait, err := s.Tip(t.Context()); err == nil || wait != 10*time.Minute {
		t.Errorf("wait %s, %v", wait, err)
	}
	s.mirror.asked = 0
	s.clock = s.clock.Add(4 * time.Minute)
	if _, wait, err := s.Tip(t.Context()); !errors.Is(err, source.ErrUnreachable) || wait != 6*time.Minute || s.mirror.asked != 0 {
		t.Errorf("wait %s, %d questions, %v", wait, s.mirror.asked, err)
	}
	s.mirror.err, s.mirror.wait = nil, 0
	s.clock = s.clock.Add(6 * time.Minute)
	s.from("backup", 0, 1)
}

// TestAnOldMirrorIsNoAttack: what a mirror holds may be old, and must be good nevertheless; the hub's own may not.
func TestAnOldMirrorIsNoAttack(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	good := h.files(h.branch())
	floor := source.Floor{Generation: 6, ManifestSHA256: "x", KeyringVersion: 3}
	for name, tt := range map[string]struct {
		files map[string][]byte
		own   bool
		want  error
	}{
		"old mirror":            {good, false, source.ErrBehind},
		"mirror that lies":      {with(good, manifest.SignatureFile, []byte("x")), false, source.ErrRefused},
		"hub goes back in time": {good, true, source.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSeveral(t, h.trust())
			s.own.files, s.mirror.files = tt.files, tt.files
			if !tt.own {
				s.own.err = errors.New("down")
			}
			if _, _, err := s.Tip(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err := s.Fetch(t.Context(), floor)
			if !errors.Is(err, tt.want) || errors.Is(err, source.ErrBehind) != errors.Is(tt.want, source.ErrBehind) {
				t.Errorf("fetch: %v, want %v", err, tt.want)
			}
			if _, again := s.Verify(floor, "c", tt.files); !errors.Is(again, tt.want) {
				t.Errorf("verify: %v, want %v", again, tt.want)
			}
		})
	}
}
