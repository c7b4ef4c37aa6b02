// Package gitrepo is the only door to Git: a bare repository on disk that the hub alone writes and that a stock
// git can read, and the client with which agents fetch from any remote.
//
// A Repo writes each batch of commits as one pack and moves all references of the batch in one rename of
// packed-refs; both are fsynced first, so that a kill or a power cut at any point leaves either the old state or
// the new one. It never writes a loose reference, never checks files out and never runs git. One process holds
// the repository at a time.
//
// Nothing here knows what the files mean: that is the business of package gitstore.
package gitrepo

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

// Errors that callers tell apart with errors.Is. A missing object, path or commit is fs.ErrNotExist.
var (
	// ErrLocked: another process has the repository open.
	ErrLocked = errors.New("repository is in use by another process")
	// ErrStale: a reference is not where Update.Expect says; nothing was changed.
	ErrStale = errors.New("reference has moved")
	// ErrCorrupt: what is on disk is not what its hash says, or is missing although something refers to it.
	ErrCorrupt = errors.New("repository is damaged")
	// ErrInvalid: an Update or a name breaks the rules; nothing was changed.
	ErrInvalid = errors.New("invalid")
	// ErrClosed: the Repo was closed.
	ErrClosed = errors.New("repository is closed")
)

// Hash is the SHA-1 name of a Git object.
type Hash [20]byte

// ParseHash parses 40 lower-case hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 2*len(h) {
		return h, fmt.Errorf("parse object hash: want %d hex digits, got %d characters", 2*len(h), len(s))
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return h, fmt.Errorf("parse object hash: character %d is not a lower-case hex digit", i+1)
		}
	}
	_, err := hex.Decode(h[:], []byte(s))
	return h, err
}

// String returns the 40 hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short returns the first 7 hex digits, for people.
func (h Hash) Short() string { return h.String()[:7] }

// IsZero tells whether h names nothing.
func (h Hash) IsZero() bool { return h == Hash{} }

// Person is an author or a committer.
type Person struct {
	Name  string
	Email string
	When  time.Time
}

// Edit writes the file at Path, or removes it.
type Edit struct {
	Path   string
	Data   []byte
	Delete bool
}

// Update moves one reference: to a new commit, to one that is there already, or away.
type Update struct {
	// Ref is the full name, such as refs/heads/main.
	Ref string
	// Expect is where Ref must be for the update to happen: nil for anywhere, the zero Hash for "does not exist".
	Expect *Hash
	// Base is the commit whose files the edits change; zero starts from nothing.
	Base Hash
	// Parents of the new commit; none makes a root commit.
	Parents []Hash
	Edits   []Edit
	// Author acted; Committer wrote and signs. A zero When is replaced by the time of the batch.
	Author    Person
	Committer Person
	// Message is the whole message; a missing final newline is added.
	Message string

	// To, if set, is where Ref moves to instead of a new commit: nothing of the above but Ref and Expect is used.
	To Hash
	// Incoming holds objects that To or Parents need and the repository does not have yet; they become part of it.
	Incoming *Incoming
	// Delete removes Ref. Nothing else but Ref and Expect is used.
	Delete bool
}

// SignFunc returns the ASCII-armored detached OpenPGP signature over a commit's bytes. It is called from several
// goroutines at once.
type SignFunc func(payload []byte) (armored []byte, err error)

// Options are what Open needs beside the folder.
type Options struct {
	// Sign signs each commit; nil leaves commits unsigned.
	Sign SignFunc
	// Now is the clock; required.
	Now func() time.Time
	// Logger is told what start-up had to mend; nil discards.
	Logger *slog.Logger
}

// Entry is one name in a folder.
type Entry struct {
	Name string
	Dir  bool
	Hash Hash
}

// Commit is a parsed commit object.
type Commit struct {
	Hash      Hash
	Tree      Hash
	Parents   []Hash
	Author    Person
	Committer Person
	Message   string
	// Signature is the ASCII-armored signature, empty if the commit is not signed.
	Signature string
	// Payload is what Signature is over: the object's bytes without the gpgsig header.
	Payload []byte
}

// notExist makes an error of class fs.ErrNotExist.
func notExist(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, fs.ErrNotExist)...)
}

// corrupt makes an error of class ErrCorrupt.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// invalid makes an error of class ErrInvalid.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}
