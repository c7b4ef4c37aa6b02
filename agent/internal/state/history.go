// This file keeps the last verified commits, as the files of each commit's tree, for a roll back without network.

package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/certferry/certferry/agent/internal/atomicfile"
)

const (
	historyDir = "history"
	// historyKeep is how many verified commits stay on disk.
	historyKeep = 10
)

// ErrUnknownCommit means that the commit is not in the local history.
var ErrUnknownCommit = errors.New("commit is not in this server's local history")

// HistoryEntry is one verified commit on disk.
type HistoryEntry struct {
	Order

	Commit string
}

var historyName = regexp.MustCompile(`^([0-9]{20})-([0-9]{20})-([0-9a-f]{40})$`)

// name is the folder of an entry. Those of one server sort by age.
func (e HistoryEntry) name() string {
	return fmt.Sprintf("%020d-%020d-%s", e.KeyringVersion, e.Generation, e.Commit)
}

func parseHistoryName(name string) (e HistoryEntry, ok bool) {
	m := historyName.FindStringSubmatch(name)
	if m == nil {
		return e, false
	}
	ring, err := strconv.ParseUint(m[1], 10, 64)
	generation, err2 := strconv.ParseUint(m[2], 10, 64)
	return HistoryEntry{Order{KeyringVersion: ring, Generation: generation}, m[3]}, err == nil && err2 == nil
}

// SaveCommit keeps the files of a verified commit and removes the oldest beyond the limit; the commit called keep
// (the one deployed) is never removed. The bundles in it stay sealed.
func (d *Dir) SaveCommit(order Order, commit string, files map[string][]byte, keep string) error {
	name := HistoryEntry{order, commit}.name()
	if _, err := os.Stat(d.Path(historyDir, name)); err == nil {
		return nil
	}
	staging := d.Path(historyDir, ".new-"+commit)
	if err := os.RemoveAll(staging); err != nil {
		return fmt.Errorf("store commit %s: %w", commit, err)
	}
	for path, data := range files {
		if !filepath.IsLocal(path) {
			return fmt.Errorf("store commit %s: path leaves the folder", commit)
		}
		full := filepath.Join(staging, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			return fmt.Errorf("store commit %s: %w", commit, err)
		}
		if err := atomicfile.Write(full, data, 0o600); err != nil {
			return fmt.Errorf("store commit %s: %w", commit, err)
		}
	}
	if err := os.Rename(staging, d.Path(historyDir, name)); err != nil {
		return fmt.Errorf("store commit %s: %w", commit, err)
	}
	if err := atomicfile.SyncDir(d.Path(historyDir)); err != nil {
		return fmt.Errorf("store commit %s: %w", commit, err)
	}
	return d.pruneHistory(keep)
}

func (d *Dir) pruneHistory(keep string) error {
	entries, err := d.History()
	if err != nil {
		return err
	}
	for i, e := range entries {
		if i < historyKeep || e.Commit == keep {
			continue
		}
		if err := os.RemoveAll(d.Path(historyDir, e.name())); err != nil {
			return fmt.Errorf("prune history: %w", err)
		}
	}
	return nil
}

// History lists the verified commits on disk, newest first.
func (d *Dir) History() ([]HistoryEntry, error) {
	names, err := os.ReadDir(d.Path(historyDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read history: %w", err)
	}
	var entries []HistoryEntry
	for _, n := range names {
		if e, ok := parseHistoryName(n.Name()); ok {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b HistoryEntry) int {
		return cmp.Or(b.Compare(a.Order), strings.Compare(a.Commit, b.Commit))
	})
	return entries, nil
}

// LoadCommit returns the files of a commit in the history; commit may be shortened to 7 or more digits where that
// is unambiguous.
func (d *Dir) LoadCommit(commit string) (HistoryEntry, map[string][]byte, error) {
	entries, err := d.History()
	if err != nil {
		return HistoryEntry{}, nil, err
	}
	var match []HistoryEntry
	for _, e := range entries {
		if len(commit) >= 7 && strings.HasPrefix(e.Commit, commit) {
			match = append(match, e)
		}
	}
	if len(match) != 1 {
		return HistoryEntry{}, nil, ErrUnknownCommit
	}
	entry := match[0]
	root := os.DirFS(d.Path(historyDir, entry.name()))
	files := map[string][]byte{}
	err = fs.WalkDir(root, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, path)
		files[path] = data
		return err
	})
	if err != nil {
		return HistoryEntry{}, nil, fmt.Errorf("read commit %s: %w", entry.Commit, err)
	}
	return entry, files, nil
}
