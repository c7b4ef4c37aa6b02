// This file clears up what orders left when the process that ran them was killed.

package acmesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/certferry/certferry/issuer"
)

// runSuffix ends the name of a run's record, which lies beside its home: who acme.sh runs as can write in a home, and the
// record says which credentials the hub hands out again.
const runSuffix = ".json"

// clearTimeout bounds the removal of one order's records.
const clearTimeout = 2 * time.Minute

// runRecord is what has to be known of a run after its process was killed.
type runRecord struct {
	OrderID string `json:"order_id"`
	// Credentials are the names of those that its hooks need.
	Credentials []string `json:"credentials"`
	// Hooks are the names of hooks by the records that they make.
	Hooks map[string]string `json:"hooks,omitempty"`
	// Ended says that the order came to its end, and only records are left of it.
	Ended bool `json:"ended,omitempty"`
}

// record writes down what runs in the home, before it runs. Its processes are known by their working folder.
func (h *home) record(ended bool) error {
	run := runRecord{OrderID: h.orderID, Credentials: h.credentialNames, Hooks: map[string]string{}, Ended: ended}
	for _, of := range h.hooks {
		run.Hooks[of.record] = of.hook
	}
	data, err := json.Marshal(run)
	if err != nil {
		return err
	}
	return writeFile(h.dir+runSuffix, data)
}

// kept are the parts of a home that the removal of its records needs. None holds a credential or the account's key.
var kept = []string{addedFile, removedFile, confFile}

// keep leaves of a home what Recover needs to remove its records, and marks the order as ended.
func (h *home) keep() error {
	entries, err := fs.ReadDir(h.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(kept, e.Name()) {
			err = errors.Join(err, h.root.RemoveAll(e.Name()))
		}
	}
	return errors.Join(err, h.record(true), h.root.Close())
}

// Recover clears up all that orders in WorkDir left: processes are killed, TXT records removed, folders deleted. An order
// whose records cannot be removed keeps its folder, for the next Recover. It is an issuer.Recoverer.
func (i *Issuer) Recover(ctx context.Context, credentials func(name string) (map[string]string, error)) ([]issuer.Leftover, error) {
	if err := claim(i.cfg.WorkDir); err != nil {
		return nil, fmt.Errorf("look for interrupted orders: %w", err)
	}
	entries, err := os.ReadDir(i.cfg.WorkDir)
	if err != nil {
		return nil, fmt.Errorf("look for interrupted orders: %w", err)
	}
	var all []issuer.Leftover
	var faults []error
	for _, e := range entries {
		if !e.IsDir() {
			i.forgetRun(ctx, e.Name())
			continue
		}
		left, err := i.recoverOne(ctx, filepath.Join(i.cfg.WorkDir, e.Name()), credentials)
		if left.OrderID != "" {
			all = append(all, left)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("clear up order %s: %w", e.Name(), err))
		}
	}
	return all, errors.Join(faults...)
}

// forgetRun removes a record whose home is gone.
func (i *Issuer) forgetRun(ctx context.Context, name string) {
	dir, ok := strings.CutSuffix(filepath.Join(i.cfg.WorkDir, name), runSuffix)
	if _, err := os.Lstat(dir); !ok || !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := forget(dir + runSuffix); err != nil {
		i.cfg.Logger.ErrorContext(ctx, "record of an order not removed", slog.Any("error", err))
	}
}

// claimed are the folders of orders that are this process's, with the locks on them, until it ends.
var claimed struct {
	sync.Mutex

	locks map[string]*os.File
}

// claim makes sure that no other process orders in dir: its orders would be taken for interrupted ones.
func claim(dir string) error {
	claimed.Lock()
	defer claimed.Unlock()
	if claimed.locks[dir] != nil {
		return nil
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600) //nolint:gosec // the path is ours
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("another hub orders in %s: give each its own acme_work_dir", dir), lock.Close())
	}
	if claimed.locks == nil {
		claimed.locks = map[string]*os.File{}
	}
	claimed.locks[dir] = lock
	return nil
}

func (i *Issuer) recoverOne(ctx context.Context, dir string, credentials func(string) (map[string]string, error)) (issuer.Leftover, error) {
	h, err := openFolder(dir)
	if err != nil {
		return issuer.Leftover{}, err
	}
	killed := h.killAll()
	run, err := h.readRun(i)
	if errors.Is(err, fs.ErrNotExist) {
		return issuer.Leftover{}, h.remove() // it had not begun
	}
	if err != nil {
		return issuer.Leftover{}, errors.Join(err, h.remove())
	}
	left := issuer.Leftover{OrderID: run.OrderID}
	if !run.Ended {
		left.Phase = h.loggedPhase()
	}
	i.cfg.Logger.WarnContext(ctx, "interrupted order found", "order", run.OrderID, "phase", left.Phase, "processes_killed", killed, "records", len(h.left()))
	if err := i.clearLeft(ctx, h, credentials); err != nil {
		for _, r := range h.left() {
			left.Records = append(left.Records, r.name+" "+r.value)
		}
		return left, errors.Join(err, h.root.Close())
	}
	return left, h.remove()
}

// readRun reads what was recorded of the run.
func (h *home) readRun(i *Issuer) (runRecord, error) {
	var run runRecord
	data, err := os.ReadFile(h.dir + runSuffix)
	if err == nil {
		err = json.Unmarshal(data, &run)
	}
	if err != nil {
		return run, err
	}
	h.orderID, h.credentialNames = run.OrderID, run.Credentials
	for record, hook := range run.Hooks {
		path, _ := i.hookFile(hook) // without it, the removal tells
		h.hooks = append(h.hooks, hookOf{record, hook, path})
	}
	return run, nil
}

// clearLeft removes the records of an interrupted order.
func (i *Issuer) clearLeft(ctx context.Context, h *home, credentials func(string) (map[string]string, error)) error {
	if len(h.left()) == 0 {
		return nil
	}
	for _, name := range h.credentialNames {
		values, err := credentials(name)
		if err != nil {
			return fmt.Errorf("read credential %s: %w", name, err)
		}
		if err := h.addCredentials(issuer.Challenge{Credential: name, Credentials: values}); err != nil {
			return err
		}
	}
	if err := errors.Join(h.root.RemoveAll("tmp"), h.root.Mkdir("tmp", 0o700), h.equip(i), h.layDNS()); err != nil {
		return err
	}
	h.finishMask()
	ctx, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	return i.clearDNS(ctx, h, nil)
}

// loggedPhase is how far acme.sh's own log says that the order came.
func (h *home) loggedPhase() issuer.Phase {
	phase := issuer.PhasePrepare
	for line := range strings.Lines(h.log()) {
		if p := phaseOf(line); p != "" && p.Reached(phase) {
			phase = p
		}
	}
	return phase
}

// killAll kills every process that works in the home, and says how many. Nothing else has its working folder there.
func (h *home) killAll() int {
	killed := 0
	for range 3 { // one may be about to start another
		found := 0
		processes, err := os.ReadDir("/proc")
		if err != nil {
			return killed
		}
		for _, p := range processes {
			pid, err := strconv.Atoi(p.Name())
			if err != nil {
				continue
			}
			at, err := os.Readlink(filepath.Join("/proc", p.Name(), "cwd"))
			if err != nil || at != h.dir && !strings.HasPrefix(at, h.dir+"/") {
				continue
			}
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				found++
			}
		}
		if found == 0 {
			break
		}
		killed += found
	}
	return killed
}
