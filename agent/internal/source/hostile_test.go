package source_test

import (
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitstoretest"
	"github.com/certferry/certferry/gitstore/manifest"
)

// What an attack may cost at most.
const (
	mostMemory = 256 << 20 * raceFactor
	mostTime   = time.Minute
)

// attack is the honest world of h, attacked.
func (h *hub) attack() *gitstoretest.Attack {
	h.tb.Helper()
	var issues [3]*bundle.Bundle
	for n := range issues {
		h.ca.Now = h.ca.Now.Add(time.Minute)
		issues[n] = h.ca.Issue(h.tb, site)
	}
	a, err := gitstoretest.NewAttack(gitstoretest.Setting{
		RepoID: repoID, Server: "web-1", Root: h.root, Signing: h.sign, Retired: h.key("retired"), Agent: h.server.Public(),
		Certificate: site, Deployer: "files", Target: "web", Bundles: issues, Now: start,
	})
	h.must(err)
	return a
}

// sourceOf is a Source of its own at a remote that a test plays.
func (h *hub) sourceOf(t *testing.T, r *gitstoretest.Remote, timeout time.Duration) *source.Source {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	limits := gitrepo.DefaultLimits
	limits.Timeout = timeout
	return source.New(&gitrepo.Remote{
		URL: server.URL, Username: "web-1", Password: "the-credential", HTTP: server.Client(), Limits: limits,
	}, h.trust(), now)
}

// newest asks for the newest state, as an agent does; nil without an error where there is no newer one.
func newest(t *testing.T, s *source.Source, floor source.Floor, present string) (*source.State, error) {
	t.Helper()
	tip, _, err := s.Tip(t.Context())
	if err != nil || tip == "" || tip == present {
		return nil, err
	}
	return s.Fetch(t.Context(), floor)
}

// TestHostileRemotes plays every hostile remote to a server that holds a state of the hub. None gets another state
// accepted, and none costs more than an agent may use. The tests of this package that run beside others wait meanwhile,
// as memory is measured.
func TestHostileRemotes(t *testing.T) {
	h := newHub(t)
	a := h.attack()
	present, _ := gitstoretest.Pack(a.Present)
	ref := manifest.ServerBranch("web-1")
	st, err := newest(t, h.sourceOf(t, gitstoretest.Honest(ref, a.Present), mostTime), source.Floor{}, "")
	if err != nil || st.Generation != 5 || st.KeyringVersion != 2 {
		t.Fatalf("honest state: %+v, %v", st, err)
	}
	floor := source.Floor{Generation: st.Generation, ManifestSHA256: st.ManifestSHA256, KeyringVersion: st.KeyringVersion}
	cases := gitstoretest.Cases()
	survived := 0
	var most int64
	var longest time.Duration
	for _, c := range cases {
		ok := t.Run(c.Name, func(t *testing.T) {
			timeout := 20 * time.Second
			if c.Slow {
				timeout = 1500 * time.Millisecond
			}
			s := h.sourceOf(t, c.Remote(a), timeout)
			var got *source.State
			var err error
			began := time.Now()
			grown, measured := gitstoretest.Growth(func() { got, err = newest(t, s, floor, present) })
			took := time.Since(began)
			if took > mostTime {
				t.Errorf("it took %s", took)
			}
			most, longest = max(most, grown), max(longest, took)
			if measured && grown > mostMemory {
				t.Errorf("it cost %d MiB", grown>>20)
			}
			if got != nil {
				t.Fatalf("accepted: generation %d, keyring %d", got.Generation, got.KeyringVersion)
			}
			wantOutcome(t, c, err)
		})
		if ok {
			survived++
		}
	}
	// The control: from the same kind of remote the honest next states are taken.
	for _, files := range []map[string][]byte{a.Next, a.SharedNext} {
		if st, err = newest(t, h.sourceOf(t, gitstoretest.Honest(ref, files), mostTime), floor, present); err != nil || st.Generation != 6 {
			t.Fatalf("honest next state: %+v, %v", st, err)
		}
	}
	t.Logf("FAULT hostile.source tried=%d survived=%d (at most %d MiB and %s)", len(cases), survived, most>>20, longest.Round(time.Millisecond))
}

func wantOutcome(t *testing.T, c gitstoretest.Case, err error) {
	t.Helper()
	want := map[gitstoretest.Outcome][]bool{ // refused, unreachable
		gitstoretest.Refused: {true, false}, gitstoretest.Away: {false, true}, gitstoretest.Frozen: {false, false},
	}
	got := []bool{errors.Is(err, source.ErrRefused), errors.Is(err, source.ErrUnreachable)}
	if !slices.Equal(got, want[c.Outcome]) || (err == nil) != (c.Outcome == gitstoretest.Frozen) {
		t.Errorf("refused %v, unreachable %v: %v", got[0], got[1], err)
	}
	if err != nil && (!strings.Contains(err.Error(), c.Says) || strings.Contains(err.Error(), "the-credential")) {
		t.Errorf("it says %q, not %q", err, c.Says)
	}
}
