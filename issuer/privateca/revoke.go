// This file keeps the lists of what was issued and what was revoked, and makes the list that clients read (RFC 5280 §5).

package privateca

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/certferry/certferry/issuer"
)

// crlLife is how long a CRL is good for; a new one is made when half of it is over.
const crlLife = 7 * 24 * time.Hour

// maxEntry bounds a line of a list, in bytes: a hundred names fit.
const maxEntry = 64 << 10

// entry is a line of a list.
type entry struct {
	// Serial is in lower-case hex.
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	At       time.Time `json:"at"`
	Names    []string  `json:"names,omitempty"`
	// Reason is a code of RFC 5280 §5.3.1.
	Reason int `json:"reason,omitempty"`
}

// note adds a line to a list, synced.
func (ca *CA) note(list string, e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	path := filepath.Join(ca.cfg.Dir, list)
	if err := endLine(path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // the folder is the administrator's
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Sync(), file.Close())
}

// endLine cuts off a last line that a crash cut short.
func endLine(path string) error {
	file, err := os.Open(path) //nolint:gosec // the folder is the administrator's
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	last := make([]byte, min(info.Size(), maxEntry))
	if _, err := file.ReadAt(last, info.Size()-int64(len(last))); err != nil {
		return err
	}
	if last[len(last)-1] == '\n' {
		return nil
	}
	return os.Truncate(path, info.Size()-int64(len(last))+int64(bytes.LastIndexByte(last, '\n')+1))
}

// entries reads a list. A last line that a crash cut short is left out: what it was about was not answered.
func (ca *CA) entries(list string) ([]entry, error) {
	data, err := os.ReadFile(filepath.Join(ca.cfg.Dir, list)) //nolint:gosec // the folder is the administrator's
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []entry
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err == nil {
			all = append(all, e)
		} else if !bytes.HasSuffix(data, lines.Bytes()) {
			return nil, fmt.Errorf("read %s: a line in its midst cannot be read", list)
		}
	}
	return all, lines.Err()
}

// Revoke puts leaf on the list that clients read. One that is on it already is no error.
func (ca *CA) Revoke(ctx context.Context, leaf *x509.Certificate, reason int) error {
	if err := ctx.Err(); err != nil {
		return &issuer.Error{Class: issuer.Retryable, Detail: "revoke the certificate", Err: err}
	}
	if err := leaf.CheckSignatureFrom(ca.intermediate); err != nil {
		return &issuer.Error{Class: issuer.Permanent, Detail: "this CA did not sign the certificate"}
	}
	if reason < 0 || reason > 10 || reason == 7 || reason == 8 {
		return &issuer.Error{Class: issuer.Permanent, ACMEType: "badRevocationReason", Detail: "the reason must be a code of RFC 5280"}
	}
	revoked, err := ca.revoked()
	if err != nil {
		return &issuer.Error{Class: issuer.Local, Detail: "read the list of revoked certificates", Err: err}
	}
	serial := leaf.SerialNumber.Text(16)
	if _, is := revoked[serial]; is {
		return nil
	}
	if err := ca.note(revokedList, entry{Serial: serial, NotAfter: leaf.NotAfter, At: ca.cfg.Now().UTC().Truncate(time.Second), Reason: reason}); err != nil {
		return &issuer.Error{Class: issuer.Local, Detail: "note what is revoked", Err: err}
	}
	return nil
}

// revoked are the revoked certificates by serial.
func (ca *CA) revoked() (map[string]entry, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	all, err := ca.entries(revokedList)
	if err != nil {
		return nil, err
	}
	bySerial := map[string]entry{}
	for _, e := range all {
		if _, twice := bySerial[e.Serial]; !twice {
			bySerial[e.Serial] = e
		}
	}
	return bySerial, nil
}

// CRL is the signed list of revoked certificates in DER. It is made anew when something was revoked and when half of its
// time is over.
func (ca *CA) CRL() ([]byte, error) {
	now := ca.cfg.Now().UTC().Truncate(time.Second)
	size := ca.sizeOf(revokedList)
	ca.mu.Lock()
	have, known := ca.crl, ca.crlOf
	ca.mu.Unlock()
	if have != nil && known == size && now.Before(have.NextUpdate.Add(-crlLife/2)) {
		return have.Raw, nil
	}
	revoked, err := ca.revoked()
	if err != nil {
		return nil, fmt.Errorf("make CRL: %w", err)
	}
	// Numbers must grow (RFC 5280 §5.2.3): the clock does.
	template := &x509.RevocationList{Number: big.NewInt(ca.cfg.Now().UnixNano()), ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(crlLife)}
	for _, e := range revoked {
		if now.After(e.NotAfter) {
			continue // nobody takes it any more
		}
		serial, ok := new(big.Int).SetString(e.Serial, 16)
		if !ok {
			return nil, fmt.Errorf("make CRL: a serial number on the list cannot be read")
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: serial, RevocationTime: e.At, ReasonCode: e.Reason,
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.intermediate, ca.key)
	if err != nil {
		return nil, fmt.Errorf("make CRL: %w", err)
	}
	made, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("make CRL: %w", err)
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.crl, ca.crlOf = made, size
	return der, nil
}

// sizeOf is the size of a list, which only grows: another CA object on the folder may have added to it.
func (ca *CA) sizeOf(list string) int64 {
	info, err := os.Stat(filepath.Join(ca.cfg.Dir, list))
	if err != nil {
		return 0
	}
	return info.Size()
}

// RenewIntermediate gives the intermediate of the CA in dir new dates under the same root, with the same key, so that
// what it signed and its CRLs stay good. It needs the root's key in its place.
func RenewIntermediate(dir string, now time.Time) error {
	ca, err := New(Config{Dir: dir, Now: func() time.Time { return now }})
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(dir, rootKey)) //nolint:gosec // the path is the administrator's
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("renew intermediate: %s is not there: bring the root's key back for the moment", filepath.Join(dir, rootKey))
	}
	if err != nil {
		return fmt.Errorf("renew intermediate: %w", err)
	}
	root, err := parseKey(data)
	if err != nil {
		return fmt.Errorf("renew intermediate: read the root's key: %w", err)
	}
	renewed, err := signAuthority(ca.intermediate.Subject.CommonName, now, intermediateLife, ca.root, root, ca.key, ca.intermediate.PermittedDNSDomains)
	if err != nil {
		return err
	}
	if err := renewed.CheckSignatureFrom(ca.root); err != nil {
		return errors.New("renew intermediate: the key that is there is not the root's")
	}
	return replace(filepath.Join(dir, intermediateCertificate), pemOf(renewed))
}
