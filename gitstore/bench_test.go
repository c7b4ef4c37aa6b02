package gitstore_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
)

// BenchmarkApply makes one signed commit on main with 10,000 certificates issued.
func BenchmarkApply(b *testing.B) {
	w := newWorld(b)
	s := w.open(1)
	var edits []gitrepo.Edit
	for i := range 10_000 {
		name := fmt.Sprintf("c%d", i)
		edits = append(edits, certificateYAML(b, name, name+".example.com"))
	}
	apply(b, s, "many", edits...)
	n := 0
	for b.Loop() {
		n++
		apply(b, s, "one", certificateYAML(b, "c7", "v"+strconv.Itoa(n)+".example.com"))
	}
}

// BenchmarkSnapshot reads main after one of 10,000 certificates changed.
func BenchmarkSnapshot(b *testing.B) {
	w := newWorld(b)
	s := w.open(1)
	var edits []gitrepo.Edit
	for i := range 10_000 {
		name := fmt.Sprintf("c%d", i)
		edits = append(edits, certificateYAML(b, name, name+".example.com"))
	}
	apply(b, s, "many", edits...)
	snapshot(b, s)
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		apply(b, s, "one", certificateYAML(b, "c7", "v"+strconv.Itoa(n)+".example.com"))
		b.StartTimer()
		snapshot(b, s)
	}
}

// BenchmarkPublish renews one certificate on many servers: seal, sign, commit, move.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			w := newWorld(b)
			s := w.open(1)
			states := make([]gitstore.ServerState, n)
			for i := range states {
				states[i] = gitstore.ServerState{Server: fmt.Sprintf("web-%d", i), Key: w.key("server").Public()}
			}
			main := snapshot(b, s).Commit
			for b.Loop() {
				b.StopTimer()
				renewed := w.bundle(60, "example.com")
				for i := range states {
					states[i].Deployments = []gitstore.Wanted{want("example.com", renewed)}
				}
				b.StartTimer()
				got, err := s.Publish(b.Context(), main, states)
				if err != nil || got[0].Err != nil || !got[n-1].Changed {
					b.Fatal(got, err)
				}
			}
		})
	}
}

// BenchmarkPublishUnchanged looks at many servers for which there is nothing to do.
func BenchmarkPublishUnchanged(b *testing.B) {
	w := newWorld(b)
	s := w.open(1)
	bundle := w.bundle(60, "example.com")
	states := make([]gitstore.ServerState, 1000)
	for i := range states {
		states[i] = gitstore.ServerState{
			Server: fmt.Sprintf("web-%d", i), Key: w.key("server").Public(), Deployments: []gitstore.Wanted{want("example.com", bundle)},
		}
	}
	main := snapshot(b, s).Commit
	if _, err := s.Publish(b.Context(), main, states); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Publish(b.Context(), main, states); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen checks, at start, a store of 10,000 servers.
func BenchmarkOpen(b *testing.B) {
	w := newWorld(b)
	s, err := gitstore.Open(w.config(1))
	w.must(err)
	bundle := w.bundle(60, "example.com")
	key := w.key("server").Public()
	states := make([]gitstore.ServerState, 10_000)
	for i := range states {
		states[i] = gitstore.ServerState{
			Server: fmt.Sprintf("web-%d", i), Key: key, Deployments: []gitstore.Wanted{want("example.com", bundle)},
		}
	}
	_, err = s.Publish(b.Context(), snapshot(b, s).Commit, states)
	w.must(err)
	w.must(s.Close())
	for b.Loop() {
		s, err := gitstore.Open(w.config(1))
		w.must(err)
		w.must(s.Close())
	}
}

// BenchmarkPrune looks, with nothing to do, through 1,000 servers of ten generations.
func BenchmarkPrune(b *testing.B) {
	w := newWorld(b)
	s := w.open(1)
	bundle := w.bundle(60, "example.com")
	key := w.key("server").Public()
	states := make([]gitstore.ServerState, 1000)
	for i := range states {
		states[i] = gitstore.ServerState{
			Server: fmt.Sprintf("web-%d", i), Key: key, Deployments: []gitstore.Wanted{want("example.com", bundle)},
		}
	}
	for range 10 {
		w.pass(day)
		_, err := s.Publish(b.Context(), snapshot(b, s).Commit, states)
		w.must(err)
	}
	for b.Loop() {
		if _, err := s.Prune(b.Context(), gitstore.PruneOptions{Keep: 90 * day}); err != nil {
			b.Fatal(err)
		}
	}
}
