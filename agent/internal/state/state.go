// Package state keeps what an agent must remember between runs: who it is, the newest state it accepted, how far
// its deployment went, and the last verified commits, from which it can roll back without a network.
//
// Every file is replaced atomically and synced, so that a kill or a power cut leaves the old or the new content.
// The folder is private to the agent's user; the key and the credential are readable by nobody else.
package state

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/certferry/certferry/agent/internal/atomicfile"
)

// ErrNotEnrolled means that there is no identity in the folder yet.
var ErrNotEnrolled = errors.New("this server is not enrolled yet: run certferry-agent enroll")

// Identity is what enrolment gave: which server this is, which repository it reads and whom it trusts.
type Identity struct {
	Server string `json:"server"`
	HubURL string `json:"hub_url"`
	GitURL string `json:"git_url"`
	RepoID string `json:"repo_id"`
	// Fingerprint is this agent's own key's, RootFingerprint that of the pinned root key; 40 upper-case hex digits.
	Fingerprint     string `json:"fingerprint"`
	RootFingerprint string `json:"root_fingerprint"`
	// RootKey is the ASCII-armored root public key.
	RootKey string `json:"root_key"`
}

// Order is the place of a state among all states of this server. A newer keyring comes after every generation of an
// older one, so that the root key can recover a server from whoever had a signing key.
type Order struct {
	KeyringVersion uint64
	Generation     uint64
}

// Compare is negative where o comes before other, 0 where they are equal.
func (o Order) Compare(other Order) int {
	return cmp.Or(cmp.Compare(o.KeyringVersion, other.KeyringVersion), cmp.Compare(o.Generation, other.Generation))
}

// Floor is the newest state that was verified: nothing older is ever accepted again.
type Floor struct {
	Generation     uint64    `json:"generation"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	KeyringVersion uint64    `json:"keyring_version"`
	Commit         string    `json:"commit"`
	FreshUntil     time.Time `json:"fresh_until"`
}

// Order is the floor's place among all states.
func (f Floor) Order() Order { return Order{f.KeyringVersion, f.Generation} }

// Progress is how far deploying went.
type Progress struct {
	// Commit, Generation and KeyringVersion are what was deployed last with success, or what a roll back on this server put back.
	Commit         string `json:"commit,omitempty"`
	Generation     uint64 `json:"generation,omitempty"`
	KeyringVersion uint64 `json:"keyring_version,omitempty"`
	// Held says that the administrator rolled back on this server; nothing is deployed until resume.
	Held bool `json:"held,omitempty"`
	// FailedCommit failed Failures times in a row and is tried again at RetryAt.
	FailedCommit string    `json:"failed_commit,omitempty"`
	Failures     int       `json:"failures,omitempty"`
	RetryAt      time.Time `json:"retry_at,omitzero"`
	// Status is ok, degraded or failed; Message says why, for people.
	Status  string    `json:"status,omitempty"`
	Message string    `json:"message,omitempty"`
	At      time.Time `json:"at,omitzero"`
	// Remote is the one that answered last.
	Remote string `json:"remote,omitempty"`
	// Counter counts heartbeats.
	Counter uint64 `json:"counter,omitempty"`
}

// Order is the place of what was deployed last.
func (p Progress) Order() Order { return Order{p.KeyringVersion, p.Generation} }

// Dir is an agent's state folder.
type Dir struct{ path string }

// Open returns the state folder at path, made where it is absent, with mode 0700.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("open state folder %s: it is open to other users (mode %o); run: chmod 700 %s", path, info.Mode().Perm(), path)
	}
	return &Dir{path: path}, nil
}

// Path joins names below the folder.
func (d *Dir) Path(names ...string) string {
	return filepath.Join(append([]string{d.path}, names...)...)
}

// Names of the files in the folder.
const (
	identityFile   = "identity.json"
	keyFile        = "key.asc"
	credentialFile = "credential"
	floorFile      = "floor.json"
	progressFile   = "progress.json"
)

// SaveIdentity stores the key, the credential and, last, the identity whose presence means enrolled.
func (d *Dir) SaveIdentity(id Identity, armoredKey []byte, credential string) error {
	if err := atomicfile.Write(d.Path(keyFile), armoredKey, 0o600); err != nil {
		return fmt.Errorf("store agent key: %w", err)
	}
	if err := atomicfile.Write(d.Path(credentialFile), []byte(credential+"\n"), 0o600); err != nil {
		return fmt.Errorf("store credential: %w", err)
	}
	return d.save(identityFile, id)
}

// Identity returns the stored identity, the armored private key and the credential, or ErrNotEnrolled.
func (d *Dir) Identity() (id Identity, armoredKey []byte, credential string, err error) {
	found, err := d.load(identityFile, &id)
	if err != nil {
		return Identity{}, nil, "", err
	}
	if !found {
		return Identity{}, nil, "", ErrNotEnrolled
	}
	if armoredKey, err = os.ReadFile(d.Path(keyFile)); err != nil {
		return Identity{}, nil, "", fmt.Errorf("read agent key: %w", err)
	}
	secret, err := os.ReadFile(d.Path(credentialFile))
	if err != nil {
		return Identity{}, nil, "", fmt.Errorf("read credential: %w", err)
	}
	for len(secret) > 0 && (secret[len(secret)-1] == '\n' || secret[len(secret)-1] == '\r') {
		secret = secret[:len(secret)-1]
	}
	return id, armoredKey, string(secret), nil
}

// Floor returns the stored floor; a zero Floor where nothing was accepted yet.
func (d *Dir) Floor() (Floor, error) {
	var f Floor
	_, err := d.load(floorFile, &f)
	return f, err
}

// SaveFloor stores f. It must be called before anything of that state is deployed.
func (d *Dir) SaveFloor(f Floor) error { return d.save(floorFile, f) }

// Progress returns the stored progress; a zero Progress where nothing was deployed yet.
func (d *Dir) Progress() (Progress, error) {
	var p Progress
	_, err := d.load(progressFile, &p)
	return p, err
}

// SaveProgress stores p.
func (d *Dir) SaveProgress(p Progress) error { return d.save(progressFile, p) }

// Reset forgets identity, floor, progress and history, for a server that enrols anew. The identity goes first: what a
// crash leaves is a server that is not enrolled.
func (d *Dir) Reset() error {
	for _, name := range []string{identityFile, nextKeyFile, oldKeyFile, floorFile, progressFile, expectedFile, historyDir} {
		if err := os.RemoveAll(d.Path(name)); err != nil {
			return fmt.Errorf("reset state: %w", err)
		}
	}
	return nil
}

func (d *Dir) save(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if err := atomicfile.Write(d.Path(name), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	return nil
}

func (d *Dir) load(name string, v any) (found bool, err error) {
	data, err := os.ReadFile(d.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("read %s: %w", d.Path(name), err)
	}
	return true, nil
}

// lockPoll is how often a waiting process looks whether the lock is free.
const lockPoll = 50 * time.Millisecond

// Lock takes the folder for one process; a second one waits until ctx is done. The kernel releases it when the
// process ends, however it ends.
func (d *Dir) Lock(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(d.Path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	timer := time.NewTicker(lockPoll)
	defer timer.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("take lock %s: %w", file.Name(), err)
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("another certferry-agent is at work in %s: %w", d.path, ctx.Err())
		}
	}
}
