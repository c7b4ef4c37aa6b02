// This file keeps the journal: what a transaction is about to do, written and fsynced before it does it. A
// journal lives in a folder of its own together with the copies of the files that were there before.

package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/agent/internal/atomicfile"
	"github.com/certferry/certferry/agent/internal/probe"
)

// journalFormat is the version of journal.json.
//
// History:
//
//	1  2026-11  first format
const journalFormat = 1

const (
	journalFile = "journal.json"
	// journalLimit caps a journal: ten thousand files are smaller.
	journalLimit = 16 << 20
	// kept is how many finished transactions stay with their backups.
	kept = 3
	// corruptSuffix marks a journal that cannot be read; it is left for a person to look at.
	corruptSuffix = ".corrupt"
)

// step is how far a transaction has come.
type step string

const (
	// stepPrepared: backups are made, new files may be staged.
	stepPrepared step = "prepared"
	// stepStaged: all new files lie beside the old ones.
	stepStaged step = "staged"
	// stepCommitting: renames may have been done.
	stepCommitting step = "committing"
	// stepCommitted: all renames are done and last.
	stepCommitted step = "committed"
	// stepReloading: the software may have read the new files.
	stepReloading step = "reloading"
	// stepRollingBack: previous files are being put back.
	stepRollingBack step = "rolling_back"
	// The ends.
	stepDone       step = "done"
	stepRolledBack step = "rolled_back"
	stepFailed     step = "failed"
)

var steps = []step{
	stepPrepared, stepStaged, stepCommitting, stepCommitted, stepReloading, stepRollingBack,
	stepDone, stepRolledBack, stepFailed,
}

func (s step) ended() bool { return s == stepDone || s == stepRolledBack || s == stepFailed }

type journal struct {
	Format    int       `json:"format"`
	Step      step      `json:"step"`
	StartedAt time.Time `json:"started_at"`
	// BrokenBefore says that the configuration test failed before anything was changed.
	BrokenBefore bool `json:"broken_before,omitempty"`
	// ReloadTried says that the software may run with the new files.
	ReloadTried bool           `json:"reload_tried,omitempty"`
	Items       []journalEntry `json:"items"`
}

// journalEntry is one deployment.
type journalEntry struct {
	Certificate string   `json:"certificate"`
	Deployer    string   `json:"deployer"`
	Target      string   `json:"target"`
	Names       []string `json:"names"`
	LeafSHA256  string   `json:"leaf_sha256"`
	// Served is what TLS clients saw before.
	Served []served `json:"served,omitempty"`
	Files  []change `json:"files,omitempty"`
}

type served struct {
	probe.Endpoint
	LeafSHA256 string `json:"leaf_sha256"`
}

// change is one file that is replaced.
type change struct {
	// Path is where the file really stands, all symbolic links resolved.
	Path string `json:"path"`
	// Temp is where its successor is staged, in the same folder.
	Temp string                `json:"temp"`
	New  string                `json:"new_sha256"`
	Attr atomicfile.Attributes `json:"attributes"`
	// Old is empty where there was no file before; OldAttr and Backup then mean nothing.
	Old     string                `json:"old_sha256,omitempty"`
	OldAttr atomicfile.Attributes `json:"old_attributes"`
	// Backup is the copy's name in the journal's folder.
	Backup string `json:"backup,omitempty"`

	data, oldData []byte
}

func (j *journal) encode() ([]byte, error) {
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode journal: %w", err)
	}
	return append(data, '\n'), nil
}

// decodeJournal is strict: a journal that this program did not write is not acted on.
func decodeJournal(data []byte) (*journal, error) {
	if len(data) > journalLimit {
		return nil, fmt.Errorf("decode journal: larger than %d bytes", journalLimit)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	j := new(journal)
	if err := dec.Decode(j); err != nil {
		return nil, fmt.Errorf("decode journal: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode journal: bytes after its end")
	}
	if err := j.validate(); err != nil {
		return nil, fmt.Errorf("decode journal: %w", err)
	}
	return j, nil
}

func (j *journal) validate() error {
	if j.Format != journalFormat {
		return fmt.Errorf("format %d is not known to this version", j.Format)
	}
	if !slices.Contains(steps, j.Step) {
		return fmt.Errorf("step %q is not known", j.Step)
	}
	for _, e := range j.Items {
		for _, c := range e.Files {
			if err := c.validate(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *change) validate() error {
	switch {
	case !filepath.IsAbs(c.Path) || filepath.Clean(c.Path) != c.Path:
		return fmt.Errorf("path %q is not plain and absolute", c.Path)
	case filepath.Dir(c.Temp) != filepath.Dir(c.Path) || filepath.Clean(c.Temp) != c.Temp || c.Temp == c.Path:
		return fmt.Errorf("staged file %q does not lie beside %q", c.Temp, c.Path)
	case len(c.New) != 64 || c.Old != "" && len(c.Old) != 64:
		return fmt.Errorf("file %q has no proper hash", c.Path)
	case c.Old != "" && (c.Backup == "" || c.Backup != filepath.Base(c.Backup) || c.Backup == "." || c.Backup == ".."):
		return fmt.Errorf("file %q has no proper backup", c.Path)
	}
	return nil
}

// journals is the folder of all journals; each has a numbered folder.
type journals string

// list returns the folders of the journals, oldest first.
func (dir journals) list() ([]string, error) {
	entries, err := os.ReadDir(string(dir))
	if err != nil {
		return nil, fmt.Errorf("list journals: %w", err)
	}
	var names []string
	for _, e := range entries { // ReadDir sorts, and the numbers have leading zeros.
		if _, err := strconv.ParseUint(e.Name(), 10, 63); err == nil {
			names = append(names, filepath.Join(string(dir), e.Name()))
		}
	}
	return names, nil
}

// create makes the folder of the next journal.
func (dir journals) create() (string, error) {
	entries, err := os.ReadDir(string(dir))
	if err != nil {
		return "", fmt.Errorf("list journals: %w", err)
	}
	next := uint64(1)
	for _, e := range entries { // Those put aside count too.
		if n, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), corruptSuffix), 10, 63); err == nil {
			next = max(next, n+1)
		}
	}
	path := filepath.Join(string(dir), fmt.Sprintf("%010d", next))
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", fmt.Errorf("make journal: %w", err)
	}
	return path, nil
}

// prune removes the oldest finished journals and their backups, for these hold private keys.
func (dir journals) prune() error {
	list, err := dir.list()
	if err != nil {
		return err
	}
	var errs error
	for len(list) > kept {
		errs = errors.Join(errs, os.RemoveAll(list[0]))
		list = list[1:]
	}
	return errs
}

// read returns the journal in the folder path, or fs.ErrNotExist if its transaction did not get that far.
func (dir journals) read(path string) (*journal, error) {
	data, _, err := atomicfile.Read(filepath.Join(path, journalFile))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return decodeJournal(data)
}
