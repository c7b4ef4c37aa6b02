package state_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent/internal/state"
)

func open(t *testing.T) *state.Dir {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestIdentityIsKeptAndPrivate(t *testing.T) {
	t.Parallel()
	dir := open(t)
	if _, _, _, err := dir.Identity(); !errors.Is(err, state.ErrNotEnrolled) {
		t.Fatalf("identity before enrolment: %v, want ErrNotEnrolled", err)
	}
	want := state.Identity{Server: "web-1", HubURL: "https://hub.test", GitURL: "https://hub.test/git/certferry.git", RepoID: "r"}
	if err := dir.SaveIdentity(want, []byte("key"), "secret"); err != nil {
		t.Fatal(err)
	}
	got, key, credential, err := dir.Identity()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || string(key) != "key" || credential != "secret" {
		t.Errorf("identity: %s key %q credential %q", diff, key, credential)
	}
	for _, name := range []string{"identity.json", "key.asc", "credential"} {
		info, err := os.Stat(dir.Path(name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, error %v, want 0600", name, info.Mode(), err)
		}
	}
}

func TestOpenRefusesAFolderOpenToOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(path); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("open: %v, want an error that says chmod 700", err)
	}
	if _, err := state.Open(filepath.Join(path, "file", "\x00")); err == nil {
		t.Error("open of an impossible path: no error")
	}
}

func TestFloorAndProgressSurvive(t *testing.T) {
	t.Parallel()
	dir := open(t)
	floor := state.Floor{Generation: 7, ManifestSHA256: "ab", KeyringVersion: 2, Commit: "c", FreshUntil: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)}
	progress := state.Progress{Commit: "c", Generation: 7, Held: true, Counter: 3}
	if err := errors.Join(dir.SaveFloor(floor), dir.SaveProgress(progress)); err != nil {
		t.Fatal(err)
	}
	gotFloor, err := dir.Floor()
	if diff := cmp.Diff(floor, gotFloor); err != nil || diff != "" {
		t.Errorf("floor: %v %s", err, diff)
	}
	gotProgress, err := dir.Progress()
	if diff := cmp.Diff(progress, gotProgress); err != nil || diff != "" {
		t.Errorf("progress: %v %s", err, diff)
	}
	if err := dir.Reset(); err != nil {
		t.Fatal(err)
	}
	if gotFloor, err = dir.Floor(); err != nil || gotFloor != (state.Floor{}) {
		t.Errorf("floor after reset: %v %v", gotFloor, err)
	}
}

func TestDamagedFileIsAnErrorNotAnEmptyState(t *testing.T) {
	t.Parallel()
	dir := open(t)
	for _, name := range []string{"floor.json", "progress.json", "identity.json"} {
		if err := os.WriteFile(dir.Path(name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dir.Floor(); err == nil {
		t.Error("damaged floor read as empty: the agent would accept any older state")
	}
	if _, err := dir.Progress(); err == nil {
		t.Error("damaged progress: no error")
	}
	if _, _, _, err := dir.Identity(); err == nil || errors.Is(err, state.ErrNotEnrolled) {
		t.Errorf("damaged identity: %v", err)
	}
}

func TestHistoryKeepsTheNewestAndTheDeployed(t *testing.T) {
	t.Parallel()
	dir := open(t)
	commit := func(n int) string { return fmt.Sprintf("%040x", n+0xabcdef0) }
	for n := 1; n <= 14; n++ {
		files := map[string][]byte{"manifest.json": fmt.Appendf(nil, "%d", n), "bundles/a.pgp": {byte(n)}}
		if err := dir.SaveCommit(state.Order{KeyringVersion: 1, Generation: uint64(n)}, commit(n), files, commit(2)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := dir.History()
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 11 || entries[0].Generation != 14 || entries[10].Generation != 2 {
		t.Errorf("history: %v, want the ten newest and generation 2", entries)
	}
	entry, files, err := dir.LoadCommit(commit(9))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"manifest.json": []byte("9"), "bundles/a.pgp": {9}}
	if diff := cmp.Diff(want, files); diff != "" || entry.Generation != 9 {
		t.Errorf("commit 9: %v %s", entry, diff)
	}
	for _, unknown := range []string{commit(3), "", commit(9)[:6], "0000000"} {
		if _, _, err := dir.LoadCommit(unknown); !errors.Is(err, state.ErrUnknownCommit) {
			t.Errorf("load commit %q: %v, want ErrUnknownCommit", unknown, err)
		}
	}
	if err := dir.SaveCommit(state.Order{KeyringVersion: 1, Generation: 14}, commit(14), nil, ""); err != nil {
		t.Errorf("save a commit again: %v", err)
	}
	if err := dir.SaveCommit(state.Order{KeyringVersion: 1, Generation: 15}, commit(15), map[string][]byte{"../evil": nil}, ""); err == nil {
		t.Error("a path that leaves the folder was accepted")
	}
}

func TestSecondLockWaits(t *testing.T) {
	t.Parallel()
	dir := open(t)
	unlock, err := dir.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	if _, err := dir.Lock(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another certferry-agent") {
		t.Errorf("second lock: %v", err)
	}
	took := make(chan error, 1)
	go func() {
		unlock, err := dir.Lock(t.Context())
		if err == nil {
			unlock()
		}
		took <- err
	}()
	unlock()
	if err := <-took; err != nil {
		t.Errorf("waiting lock: %v", err)
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := open(t)
	for _, name := range []string{"key.asc", "credential", "identity.json", "floor.json", "progress.json", "lock", "history"} {
		if name == "history" {
			if err := os.WriteFile(dir.Path(name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(dir.Path(name, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, floorErr := dir.Floor()
	_, _, _, identityErr := dir.Identity()
	_, historyErr := dir.History()
	_, _, loadErr := dir.LoadCommit(strings.Repeat("0", 40))
	_, lockErr := dir.Lock(t.Context())
	for what, err := range map[string]error{
		"save identity": dir.SaveIdentity(state.Identity{}, nil, ""), "save floor": dir.SaveFloor(state.Floor{}),
		"save progress": dir.SaveProgress(state.Progress{}), "floor": floorErr, "identity": identityErr, "lock": lockErr,
		"history": historyErr, "load commit": loadErr,
		"save commit": dir.SaveCommit(state.Order{KeyringVersion: 1, Generation: 1}, strings.Repeat("0", 40), map[string][]byte{"a/b": nil}, ""),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestIdentityWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"key.asc", "credential"} {
		dir := open(t)
		if err := dir.SaveIdentity(state.Identity{Server: "web-1"}, []byte("key"), "secret"); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(dir.Path(name)); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := dir.Identity(); !errors.Is(err, os.ErrNotExist) || errors.Is(err, state.ErrNotEnrolled) {
			t.Errorf("identity without %s: %v", name, err)
		}
	}
}

func TestHistoryIgnoresWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	dir := open(t)
	for _, name := range []string{"notes", strings.Repeat("9", 20) + "-" + strings.Repeat("0", 40)} {
		if err := os.MkdirAll(dir.Path("history", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := dir.History(); err != nil || len(entries) != 0 {
		t.Errorf("history: %v, %v", entries, err)
	}
}

// TestHistoryAfterANewKeyring: a newer keyring starts generations anew, and its commits are newer than all before.
func TestHistoryAfterANewKeyring(t *testing.T) {
	t.Parallel()
	dir := open(t)
	save := func(ring, generation uint64) {
		t.Helper()
		err := dir.SaveCommit(state.Order{KeyringVersion: ring, Generation: generation}, fmt.Sprintf("%040x", ring<<32|generation), map[string][]byte{"a": nil}, "")
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint64(10) {
		save(1, 1<<53+n)
	}
	save(2, 7)
	save(2, 8)
	entries, err := dir.History()
	if err != nil || len(entries) != 10 || entries[0].Generation != 8 || entries[1].Generation != 7 || entries[2].Generation != 1<<53+9 {
		t.Errorf("history %v, %v", entries, err)
	}
}
