package gitrepo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Sizes of the caches: entries of trees (about 100 bytes each) and commits (about 2 KiB each).
const (
	treeCacheEntries = 1 << 18
	commitCacheSize  = 1 << 12
)

// lockName is the file whose flock says that a process has the repository.
const lockName = "certferry.lock"

// repoConfig is the repository's config file. Git must neither gather objects behind the writer's back nor keep
// reflogs.
const repoConfig = `[core]
	repositoryformatversion = 0
	filemode = true
	bare = true
	logAllRefUpdates = false
[gc]
	auto = 0
[maintenance]
	auto = false
`

// Repo is an open repository. All methods may be called from several goroutines; Apply calls run one after another.
type Repo struct {
	dir    string
	opt    Options
	lock   *os.File
	packs  *packStore
	trees  *cache[[]Entry]
	log    *cache[*Commit]
	refs   atomic.Pointer[refState]
	write  sync.Mutex // held by the one writer
	closed bool       // under write
	// pruning is set while a prune looks for garbage: packs must not be merged meanwhile. Under write.
	pruning bool
	stamp   fileStamp // of packed-refs, under write
}

// Open opens the bare repository in dir and makes it if it is absent. It takes the process lock (ErrLocked if
// another process has it), removes what a killed process left behind, and checks that every reference leads to a
// complete commit whose objects hash to their names.
func Open(dir string, opt Options) (*Repo, error) {
	if opt.Now == nil {
		return nil, errors.New("open repository: no clock given")
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Repo{dir: dir, opt: opt, trees: newCache[[]Entry](treeCacheEntries), log: newCache[*Commit](commitCacheSize)}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", dir, errors.Join(err, r.release()))
	}
	return r, nil
}

func (r *Repo) open() error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	if err := r.checkFolder(); err != nil {
		return err
	}
	if err := r.takeLock(); err != nil {
		return err
	}
	if err := errors.Join(r.clean(), r.finishPrune()); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	if err := r.layOut(); err != nil {
		return fmt.Errorf("lay out: %w", err)
	}
	var err error
	if r.packs, err = openPackStore(r.path("objects")); err != nil {
		return err
	}
	if err := r.loadRefs(); err != nil {
		return err
	}
	return r.verifyTips()
}

// checkFolder refuses a folder that holds something else.
func (r *Repo) checkFolder() error {
	if _, err := os.Lstat(r.path("HEAD")); err == nil {
		return nil
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case lockName, "objects", "refs", "packed-refs", "config", "packed-refs.lock", "config.lock", "HEAD.lock":
		default:
			return invalid("the folder holds %q and is not a repository", e.Name())
		}
	}
	return nil
}

func (r *Repo) takeLock() error {
	f, err := os.OpenFile(r.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(err, f.Close())
	}
	r.lock = f
	return nil
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrLocked
		default:
			return err
		}
	}
}

// layOut makes what is missing of a bare repository. HEAD comes last: with it the repository is one.
func (r *Repo) layOut() error {
	for _, dir := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := errors.Join(os.MkdirAll(r.path(dir), 0o700), syncDir(filepath.Dir(r.path(dir)))); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(r.path("HEAD")); err == nil {
		return r.checkHead()
	}
	for _, f := range []struct{ name, text string }{
		{"config", repoConfig},
		{"packed-refs", packedRefsHeader},
		{"HEAD", "ref: refs/heads/main\n"},
	} {
		_, err := writeFile(r.path(f.name), func(w io.Writer) error {
			_, err := io.WriteString(w, f.text)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkHead refuses a repository with a checked-out branch of its own ideas, and mends a missing packed-refs.
func (r *Repo) checkHead() error {
	head, err := os.ReadFile(r.path("HEAD"))
	if err != nil {
		return err
	}
	if string(head) != "ref: refs/heads/main\n" {
		return invalid("HEAD does not point to refs/heads/main")
	}
	if _, err := os.Lstat(r.path("packed-refs")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = writeFile(r.path("packed-refs"), newRefState(nil, 0).encode)
	return err
}

func (r *Repo) loadRefs() error {
	data, err := os.ReadFile(r.path("packed-refs"))
	if err != nil {
		return err
	}
	hashes, err := parsePackedRefs(data)
	if err != nil {
		return err
	}
	if r.stamp, err = stampOf(r.path("packed-refs")); err != nil {
		return err
	}
	r.refs.Store(newRefState(hashes, 1))
	return r.absorbLoose()
}

// Close ends writing, gives up the lock and closes the files. Reading fails afterwards.
func (r *Repo) Close() error {
	r.write.Lock()
	defer r.write.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.release()
}

func (r *Repo) release() error {
	var errs []error
	if r.packs != nil {
		errs = append(errs, r.packs.close())
	}
	if r.lock != nil {
		// Closing alone would not do: a child process that was just forked holds the file until it runs its program.
		errs = append(errs, flock(r.lock, syscall.LOCK_UN), r.lock.Close())
	}
	return errors.Join(errs...)
}

func (r *Repo) path(name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

// now is the time as Git keeps it.
func (r *Repo) now() time.Time { return r.opt.Now().UTC().Truncate(time.Second) }
