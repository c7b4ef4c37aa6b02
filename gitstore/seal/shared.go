// This file seals one body for several recipients: a body that is stored once, and a small key packet for each of them.

package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// maxSharedKey bounds the key packet of one recipient, in bytes; one of the profile has about 96.
const maxSharedKey = 1 << 10

// SealShared encrypts plain once and returns the body (RFC 4880, section 5.13) and, in the order of to, the key packet
// (section 5.1) with which each recipient opens it. The key packet followed by the body is a message that gpg --decrypt
// reads.
//
// The signature inside names no recipient, and each of them could hand the body on to others: that a server may use it
// must be said by something else that is signed, such as the SHA-256 sums of both parts in its manifest.
//
//nolint:revive // stutters, and is the counterpart of OpenShared
func SealShared(plain []byte, to []*PublicKey, signer *PrivateKey, now time.Time) (body []byte, keys [][]byte, err error) {
	if len(plain) > MaxPlain {
		return nil, nil, fmt.Errorf("seal: more than %d bytes", MaxPlain)
	}
	session := make([]byte, packet.CipherAES256.KeySize())
	_, _ = rand.Read(session) // never fails (crypto/rand)
	defer clear(session)
	if body, err = sharedBody(plain, session, signer, now); err != nil {
		return nil, nil, fmt.Errorf("seal: %w", err)
	}
	if keys, err = wrapAll(session, to); err != nil {
		return nil, nil, fmt.Errorf("seal: %w", err)
	}
	return body, keys, nil
}

// sharedBody encrypts under a session key and signs inside.
func sharedBody(plain, session []byte, signer *PrivateKey, now time.Time) ([]byte, error) {
	unnamed := false
	c := config(notBefore(now, signer.entity))
	c.CheckIntendedRecipients = &unnamed
	var out bytes.Buffer
	// The signer stands in as the recipient whose preferences decide, as they are those of the profile; its key packet
	// is thrown away.
	w, err := openpgp.EncryptWithParams(&out, []*openpgp.Entity{signer.entity}, nil, &openpgp.EncryptParams{
		KeyWriter: io.Discard, SessionKey: slices.Clone(session),
		Signers:        []*openpgp.Entity{signer.entity},
		Hints:          &openpgp.FileHints{IsUTF8: false},
		EncryptionTime: &time.Time{},
		Config:         c,
	})
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// wrapAll encrypts the session key to each recipient, on all processors: there may be ten thousand.
func wrapAll(session []byte, to []*PublicKey) ([][]byte, error) {
	keys, faults := make([][]byte, len(to)), make([]error, len(to))
	share := len(to)/runtime.GOMAXPROCS(0) + 1
	var wg sync.WaitGroup
	for first := 0; first < len(to); first += share {
		wg.Go(func() {
			for i := first; i < min(first+share, len(to)); i++ {
				keys[i], faults[i] = wrap(session, to[i])
			}
		})
	}
	wg.Wait()
	return keys, errors.Join(faults...)
}

func wrap(session []byte, to *PublicKey) ([]byte, error) {
	c := config(time.Time{})
	target, ok := to.entity.EncryptionKey(time.Time{}, c)
	if !ok {
		return nil, fmt.Errorf("key %s: it has no subkey to encrypt to", to.Fingerprint())
	}
	var out bytes.Buffer
	if err := packet.SerializeEncryptedKey(&out, target.PublicKey, packet.CipherAES256, session, c); err != nil {
		return nil, fmt.Errorf("key %s: %w", to.Fingerprint(), err)
	}
	return out.Bytes(), nil
}

// OpenShared opens a body with the key packet that SealShared made for key, and checks that exactly one of the trusted
// keys signed it. Errors are those of Open. A message that was sealed to one recipient alone is refused.
func OpenShared(keyPacket, body []byte, key *PrivateKey, trusted []*PublicKey, now time.Time) ([]byte, error) {
	if err := checkParts(keyPacket, body); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return open(slices.Concat(keyPacket, body), key, trusted, func(s *packet.Signature) error {
		if len(s.IntendedRecipients) != 0 {
			return fmt.Errorf("%w: it names a recipient, and was not made to be shared", ErrSignature)
		}
		return nil
	}, now)
}

// checkParts makes sure that the key packet is one, and that the body brings none of its own.
func checkParts(keyPacket, body []byte) error {
	if len(keyPacket) > maxSharedKey {
		return fmt.Errorf("key packet of more than %d bytes", maxSharedKey)
	}
	packets := packet.NewReader(bytes.NewReader(keyPacket))
	p, err := packets.Next()
	if _, ok := p.(*packet.EncryptedKey); err != nil || !ok {
		return errors.New("damaged key packet")
	}
	if _, err := packets.Next(); !errors.Is(err, io.EOF) {
		return errors.New("damaged key packet: something follows it")
	}
	p, err = packet.NewReader(bytes.NewReader(body)).Next()
	if s, ok := p.(*packet.SymmetricallyEncrypted); err != nil || !ok || !s.IntegrityProtected || s.Version != 1 {
		return errors.New("damaged message: it does not start with encrypted data")
	}
	return nil
}
