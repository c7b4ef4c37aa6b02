// Package keystore keeps the private keys that this server made and that never leave it: one file for each, named by
// the hash of its public key, readable by nobody else.
//
// A key is on disk before its certificate request is sent, so that a certificate never comes for a key that was lost. It
// stays until no state of the local history needs it and its last certificate has expired, for as long may a roll back
// bring that certificate back.
package keystore

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/agent/internal/atomicfile"
	"github.com/certferry/certferry/gitstore/bundle"
)

// format is the version of a key's file.
//
// History:
//
//	1  2026-11  first format
const format = 1

const (
	// maxSize caps a file: an RSA key of 4096 bits needs 4 KiB.
	maxSize = 32 << 10
	// maxUnused is how many keys of one certificate wait for a certificate at most: whoever asks for more loses the oldest.
	maxUnused = 8
	// maxKeys is how many keys are kept at most, whoever asks for more.
	maxKeys = 4096
	// grace is for how long a key outlives its certificate: a clock may be wrong.
	grace = 24 * time.Hour
)

// ErrFull says that no more keys are made.
var ErrFull = fmt.Errorf("this server keeps %d private keys already: remove those of certificates that are gone", maxKeys)

// Store is the folder of the keys.
type Store struct{ dir string }

// Open opens the folder, which it makes with mode 0700. It belongs to one process at a time.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of keys: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a folder: 0700 is closed to everybody else
		return nil, fmt.Errorf("make folder of keys: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Wish is what a key is asked for.
type Wish struct {
	// ID names the asking: the same id gets the same key.
	ID          string
	Certificate string
	Type        bundle.KeyType
	// Reuse is the hash of the key to use again, empty for a new key. A new one is made where that is not here, or not
	// this certificate's, or of another type.
	Reuse string
}

// file is a key on disk.
type file struct {
	Format      int       `json:"format"`
	Certificate string    `json:"certificate"`
	ID          string    `json:"id"`
	MadeAt      time.Time `json:"made_at"`
	// NotAfter is when the last certificate of the key expires, zero before there is one.
	NotAfter time.Time `json:"not_after,omitzero"`
	// Key is PKCS #8 in PEM.
	Key string `json:"key"`

	spki   string
	signer crypto.Signer
}

// Key returns the key for a wish. It is on disk for good.
func (s *Store) Key(w Wish, now time.Time) (crypto.Signer, error) {
	all, err := s.list()
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.Certificate == w.Certificate && bundle.TypeOf(f.signer.Public()) == w.Type && (f.spki == w.Reuse || f.ID == w.ID) {
			return f.signer, nil
		}
	}
	if len(all) >= maxKeys {
		return nil, ErrFull
	}
	signer, err := bundle.GenerateKey(w.Type)
	if err != nil {
		return nil, err
	}
	if err := s.add(w, signer, now); err != nil {
		return nil, err
	}
	return signer, s.dropUnused(all, w.Certificate)
}

// add writes a new key.
func (s *Store) add(w Wish, signer crypto.Signer, now time.Time) error {
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return fmt.Errorf("encode private key: %w", err)
	}
	spki, err := bundle.KeySHA256(signer.Public())
	if err != nil {
		return err
	}
	return s.write(&file{
		Format: format, Certificate: w.Certificate, ID: w.ID, MadeAt: now.UTC().Truncate(time.Second),
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), spki: spki,
	})
}

// dropUnused removes the oldest keys that never got a certificate, where there are too many beside the newest.
func (s *Store) dropUnused(before []*file, certificate string) error {
	unused := slices.DeleteFunc(slices.Clone(before), func(f *file) bool { return f.Certificate != certificate || !f.NotAfter.IsZero() })
	slices.SortFunc(unused, func(a, b *file) int { return cmp.Or(a.MadeAt.Compare(b.MadeAt), strings.Compare(a.spki, b.spki)) })
	for len(unused) >= maxUnused {
		if err := s.remove(unused[0]); err != nil {
			return err
		}
		unused = unused[1:]
	}
	return nil
}

// Find returns the key of a certificate by the hash of its public key; the error is fs.ErrNotExist where it is not here.
func (s *Store) Find(certificate, spki string) (crypto.Signer, error) {
	f, err := s.read(spki)
	if err != nil {
		return nil, err
	}
	if f.Certificate != certificate {
		return nil, fmt.Errorf("private key %s is that of certificate %s: %w", spki, f.Certificate, fs.ErrNotExist)
	}
	return f.signer, nil
}

// Used notes that the key has a certificate which expires at notAfter.
func (s *Store) Used(spki string, notAfter time.Time) error {
	f, err := s.read(spki)
	if err != nil || !notAfter.After(f.NotAfter) {
		return err
	}
	f.NotAfter = notAfter.UTC()
	return s.write(f)
}

// Prune removes the keys whose certificates have expired, but for those in keep, which holds hashes of public keys.
func (s *Store) Prune(keep map[string]bool, now time.Time) error {
	all, err := s.list()
	if err != nil {
		return err
	}
	var faults []error
	for _, f := range all {
		if !f.NotAfter.IsZero() && now.After(f.NotAfter.Add(grace)) && !keep[f.spki] {
			faults = append(faults, s.remove(f))
		}
	}
	return errors.Join(faults...)
}

// Empty says whether this server never made a key.
func (s *Store) Empty() bool {
	names, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	return err == nil && len(names) == 0
}

// list reads all keys. What cannot be read is left alone and left out: it may be another certificate's.
func (s *Store) list() ([]*file, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list private keys: %w", err)
	}
	var all []*file
	for _, e := range entries {
		if spki, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			if f, err := s.read(spki); err == nil {
				all = append(all, f)
			}
		}
	}
	return all, nil
}

func (s *Store) path(spki string) string { return filepath.Join(s.dir, spki+".json") }

func (s *Store) read(spki string) (*file, error) {
	if len(spki) != 64 || strings.Trim(spki, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("read private key: its name is no hash: %w", fs.ErrNotExist)
	}
	opened, err := os.Open(s.path(spki))
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(opened, maxSize+1))
	if err := errors.Join(err, opened.Close()); err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	f, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("read private key %s: %w", spki, err)
	}
	if f.spki != spki {
		return nil, fmt.Errorf("read private key %s: the file holds another key", spki)
	}
	return f, nil
}

// decode is strict. No error repeats what the file holds.
func decode(data []byte) (*file, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("more than %d bytes", maxSize)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	f := new(file)
	if err := dec.Decode(f); err != nil || dec.More() {
		return nil, errors.New("it is damaged")
	}
	if f.Format != format {
		return nil, errors.New("a newer agent wrote it")
	}
	var err error
	if f.signer, err = bundle.ParseKey([]byte(f.Key)); err != nil {
		return nil, err
	}
	f.spki, err = bundle.KeySHA256(f.signer.Public())
	return f, err
}

func (s *Store) write(f *file) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode private key: %w", err)
	}
	if err := atomicfile.Write(s.path(f.spki), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("store private key: %w", err)
	}
	return nil
}

func (s *Store) remove(f *file) error {
	if err := os.Remove(s.path(f.spki)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove private key: %w", err)
	}
	return nil
}
