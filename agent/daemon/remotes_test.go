package daemon_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/internal/githost"
)

// mirrored is a world with a mirror of the hub's repository on a stock Git host.
type mirrored struct {
	*world

	host *githost.Host
	dir  string
	hub  *gitrepo.Remote
}

func newMirrored(t *testing.T) *mirrored {
	t.Helper()
	m := &mirrored{world: newWorld(t), host: githost.Start(t, true)}
	var url string
	m.dir, url = m.host.Create(t, "fleet.git")
	secret := filepath.Join(t.TempDir(), "password")
	m.must(os.WriteFile(secret, []byte(githost.Password+"\n"), 0o600))
	settings := gitrepo.RemoteSettings{URL: url, Username: githost.Reader, PasswordFile: secret, CAFile: m.host.CAFile}
	m.cfg.Remotes = []daemon.RemoteConfig{{Name: "backup", RemoteSettings: settings}}
	settings.Username = githost.Writer
	var err error
	m.hub, err = settings.Remote(gitrepo.PushLimits)
	m.must(err)
	return m
}

// push brings the mirror to what the hub holds.
func (m *mirrored) push() {
	m.t.Helper()
	there, err := m.hub.List(m.t.Context(), "refs/heads/")
	m.must(err)
	var updates []gitrepo.RefUpdate
	for ref, h := range m.store.Repo().Refs() {
		if there[ref] != h {
			updates = append(updates, gitrepo.RefUpdate{Ref: ref, Old: there[ref], New: h})
		}
	}
	results, err := m.hub.Push(m.t.Context(), m.store.Repo(), updates, true)
	m.must(err)
	for _, r := range results {
		m.must(r.Err)
	}
}

func (m *mirrored) down(down bool) {
	m.gitDown.Store(down)
	m.hubDown.Store(down)
}

// TestMirrorServesWhileTheHubIsDown: a renewal that was pushed before arrives, and the hub is asked again later.
func TestMirrorServesWhileTheHubIsDown(t *testing.T) {
	t.Parallel()
	m := newMirrored(t)
	a := m.agent()
	one := m.issue()
	m.deployed(a, m.publish(one), one)
	two := m.issue()
	commit := m.publish(two)
	m.push()
	m.down(true)
	m.deployed(a, commit, two)
	if s := m.status(a); s.Remote != "backup" || s.Status != "ok" || s.Alarm != "" {
		t.Errorf("status %+v", s)
	}
	m.once(a, daemon.ErrNothingToDo)
	m.down(false)
	m.once(a, daemon.ErrNothingToDo)
	if s := m.status(a); s.Remote != "backup" {
		t.Errorf("the hub was asked again at once: %+v", s)
	}
	m.pass(2 * time.Minute)
	three := m.issue()
	m.deployed(a, m.publish(three), three) // which the mirror does not have
	if s := m.status(a); s.Remote != "hub" {
		t.Errorf("status %+v", s)
	}
}

// TestMirrorThatIsBehind: older states are no attack and change nothing.
func TestMirrorThatIsBehind(t *testing.T) {
	t.Parallel()
	m := newMirrored(t)
	a := m.agent()
	one := m.issue()
	first := m.publish(one)
	m.push()
	m.deployed(a, first, one)
	two := m.issue()
	m.deployed(a, m.publish(two), two)
	m.taken()
	m.down(true)
	m.onceSays(a, daemon.ErrNothingToDo, "backup holds generation 1, this server has seen 2")
	m.site.wantServed(two)
	if s := m.status(a); s.Status == "failed" || s.Generation != 2 {
		t.Errorf("status %+v", s)
	}
	m.down(false)
	if reports := m.taken(); len(reports) != 0 {
		t.Errorf("reports %+v", reports)
	}
	// A mirror without the branch is behind as well.
	m.must(os.RemoveAll(filepath.Join(m.dir, "refs")))
	m.must(os.MkdirAll(filepath.Join(m.dir, "refs", "heads"), 0o700))
	m.must(os.WriteFile(filepath.Join(m.dir, "packed-refs"), nil, 0o600))
	m.down(true)
	m.pass(time.Hour)
	m.onceSays(a, daemon.ErrNothingToDo, "backup has no branch for this server")
	m.site.wantServed(two)
}

// TestFirstRemoteIsBad: what it sends is refused and reported, and the next one's state is deployed in the same cycle.
func TestFirstRemoteIsBad(t *testing.T) {
	t.Parallel()
	m := newMirrored(t)
	m.cfg.Remotes = append(m.cfg.Remotes, daemon.RemoteConfig{Name: "hub"}) // the mirror stands first
	a := m.agent()
	one := m.issue()
	commit := m.publish(one)
	m.push()
	evil, err := gitrepo.Open(t.TempDir(), gitrepo.Options{Now: m.now})
	m.must(err)
	defer func() { _ = evil.Close() }()
	person := gitrepo.Person{Name: "e"}
	hashes, err := evil.Apply(t.Context(), []gitrepo.Update{{
		Ref: "refs/heads/servers/web-1", Author: person, Committer: person, Message: "x", Edits: []gitrepo.Edit{{Path: "manifest.json", Data: []byte("{}")}},
	}}, nil)
	m.must(err)
	tip, err := m.hub.Poll(t.Context(), "refs/heads/servers/web-1", "")
	m.must(err)
	results, err := m.hub.Push(t.Context(), evil, []gitrepo.RefUpdate{{Ref: "refs/heads/servers/web-1", Old: tip.Hash, New: hashes[0]}}, true)
	m.must(err)
	m.must(results[0].Err)
	m.deployed(a, commit, one)
	reports := m.taken()
	if len(reports) != 2 || reports[0].Error == "" || reports[0].Commit != hashes[0].String() || reports[1].Commit != commit {
		t.Errorf("reports %+v", reports)
	}
	if s := m.status(a); s.Remote != "hub" || s.Status != "ok" {
		t.Errorf("status %+v", s)
	}
}

// TestFrozenRemoteIsPassedOver: the hub knows of a newer state, the first remote does not show it, the next one does.
func TestFrozenRemoteIsPassedOver(t *testing.T) {
	t.Parallel()
	m := newMirrored(t)
	m.cfg.Remotes = append(m.cfg.Remotes, daemon.RemoteConfig{Name: "hub"})
	a := m.agent()
	one := m.issue()
	first := m.publish(one)
	m.push()
	m.deployed(a, first, one)
	two := m.issue()
	m.publish(two)
	m.once(a, daemon.ErrNothingToDo) // nobody told
	m.site.wantServed(one)
	m.runUntil(a, 2, func() bool { return m.status(a).Generation == 2 })
	m.site.wantServed(two)
}

// runUntil runs the agent while the hub's heartbeats speak of a generation, until done.
func (m *mirrored) runUntil(a *daemon.Agent, generation uint64, done func() bool) {
	m.t.Helper()
	m.mu.Lock()
	m.beatReply.Generation = generation
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(m.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for ok := false; !ok; {
		select {
		case <-tick.C:
			ok = done()
		case <-deadline:
			m.t.Errorf("waited in vain; status %+v", m.status(a))
			ok = true
		}
	}
	cancel()
	m.must(<-ended)
}

// TestFreezeAlarm: all remotes hide what the hub tells of. The alarm comes after five minutes and goes with the state.
func TestFreezeAlarm(t *testing.T) {
	t.Parallel()
	m := newMirrored(t)
	a := m.agent()
	one := m.issue()
	first := m.publish(one)
	m.push()
	m.deployed(a, first, one)
	// The heartbeat's answer was noted, not only its question.
	noted := func() bool {
		_, err := os.Stat(filepath.Join(m.cfg.StateDir, "expected.json"))
		return err == nil
	}
	m.runUntil(a, 9, noted)
	if s := m.status(a); s.Alarm != "" {
		t.Errorf("alarm at once: %+v", s)
	}
	m.pass(6 * time.Minute)
	m.runUntil(a, 9, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		last := m.heartbeats[len(m.heartbeats)-1]
		return last.Status == "degraded" && last.NewestGeneration == 1 && strings.Contains(last.Message, "generation 9")
	})
	if s := m.status(a); !strings.Contains(s.Alarm, "the Git remotes show 1") || s.Status != "degraded" {
		t.Errorf("status %+v", s)
	}
	m.site.wantServed(one)
	two := m.issue()
	m.publish(two)
	m.runUntil(a, 2, func() bool { s := m.status(a); return s.Generation == 2 && s.Alarm == "" && s.Status == "ok" })
	m.site.wantServed(two)
	m.pass(10 * time.Minute)
	if s := m.status(a); s.Alarm != "" {
		t.Errorf("alarm stays: %+v", s)
	}
}

// TestRollBackWithAllRemotesDown needs the local history alone.
func TestRollBackWithAllRemotesDown(t *testing.T) {
	t.Parallel()
	m := newMirrored(t)
	a := m.agent()
	one, two := m.issue(), m.issue()
	first := m.publish(one)
	m.deployed(a, first, one)
	second := m.publish(two)
	m.deployed(a, second, two)
	m.down(true)
	m.host.Break(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	result, err := a.Rollback(t.Context(), "")
	if err != nil || result.Commit != first {
		t.Fatalf("roll back: %+v %v", result, err)
	}
	m.site.wantServed(one)
	_, err = a.Once(t.Context())
	if !errors.Is(err, daemon.ErrUnreachable) || !strings.Contains(err.Error(), "remote hub: ") || !strings.Contains(err.Error(), "remote backup: ") {
		t.Errorf("once: %v", err)
	}
	m.must(a.Resume(t.Context()))
	m.down(false)
	m.pass(time.Hour)
	m.deployed(a, second, two)
}

func TestRemotesOfTheConfiguration(t *testing.T) {
	t.Parallel()
	load := func(text string) (daemon.Config, error) {
		path := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return daemon.LoadConfig(path, true, nil)
	}
	got, err := load("remotes:\n  - {name: backup, url: 'ssh://git@h/x.git', ssh_key: /k, known_hosts: /h}\n  - name: hub\n")
	if err != nil || len(got.Remotes) != 2 || got.Remotes[0].SSHKey != "/k" || got.Remotes[1].Name != "hub" {
		t.Errorf("%+v %v", got.Remotes, err)
	}
	for text, want := range map[string]string{
		"[{url: 'https://h/x'}]":                                                "remotes[0].name",
		"[{name: hub, url: 'https://h/x'}]":                                     "remotes[0].name: hub is the hub's own",
		"[{name: a, url: 'https://h/x'}, {name: a, url: 'https://h/x'}]":        "remotes[1].name: another",
		"[{name: a, url: 'https://me:pw@h/x'}]":                                 "remotes[0].url: must not hold",
		"[{name: a, url: 'https://h/x', password: pw}]":                         "field password not found",
		"[{name: a, url: 'https://h/x', username: u, password_file: relative}]": "remotes[0].password_file: must be an absolute",
	} {
		if _, err := load("remotes: " + text + "\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := daemon.LoadConfig("", false, []string{"CERTFERRY_AGENT_REMOTES=x"}); err == nil || !strings.Contains(err.Error(), "write it into the file") {
		t.Errorf("remotes by environment: %v", err)
	}
}

// TestUnreadableRemoteIsLeftOut: a mistake about a mirror must not keep the agent from serving.
func TestUnreadableRemoteIsLeftOut(t *testing.T) {
	t.Parallel()
	m := newMirrored(t)
	m.cfg.Remotes[0].PasswordFile = "/nowhere/password"
	a := m.agent()
	b := m.issue()
	m.deployed(a, m.publish(b), b)
}
