// This file seals and opens bundles, and makes and checks detached signatures.

package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const (
	// MaxPlain bounds what is sealed, in bytes.
	MaxPlain = 512 << 10
	// maxSealed bounds what is opened: the plain size and its wrapping.
	maxSealed = MaxPlain + 64<<10
	// maxSignature bounds an armored signature.
	maxSignature = 16 << 10
	// clockSkew is how far ahead of the verifier's clock a signature may have been made: a server whose clock is a
	// day behind must still deploy.
	clockSkew = 24 * time.Hour
)

// Errors that callers may tell apart.
var (
	// ErrSignature: not signed, not by a trusted key, or not over these bytes.
	ErrSignature = errors.New("signature does not verify")
	// ErrNotForUs: sealed to another key.
	ErrNotForUs = errors.New("sealed to another key")
)

// errAsked is what the library gets where it would ask a person for a passphrase.
var errAsked = errors.New("a passphrase is asked for")

// Seal encrypts plain to one key and signs it, naming that key as the intended recipient. The result is binary
// OpenPGP that gpg --decrypt reads.
func Seal(plain []byte, to *PublicKey, signer *PrivateKey, now time.Time) ([]byte, error) {
	if len(plain) > MaxPlain {
		return nil, fmt.Errorf("seal: more than %d bytes", MaxPlain)
	}
	var out bytes.Buffer
	w, err := openpgp.EncryptWithParams(&out, []*openpgp.Entity{to.entity}, nil, &openpgp.EncryptParams{
		Signers:        []*openpgp.Entity{signer.entity},
		Hints:          &openpgp.FileHints{IsUTF8: false},
		EncryptionTime: &time.Time{}, // keys do not expire, and the recipient's clock may be ahead
		Config:         config(notBefore(now, signer.entity)),
	})
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return out.Bytes(), nil
}

// notBefore keeps a signature from being older than its key after the clock was set back.
func notBefore(now time.Time, signer *openpgp.Entity) time.Time {
	if created := signer.PrimaryKey.CreationTime; now.Before(created) {
		return created
	}
	return now
}

// Open decrypts what was sealed to key and checks that exactly one of the trusted keys signed it for this
// recipient. Nothing is returned unless everything verified; an error is ErrNotForUs, ErrSignature or says that
// the message is damaged.
func Open(sealed []byte, key *PrivateKey, trusted []*PublicKey, now time.Time) ([]byte, error) {
	return open(sealed, key, trusted, namesOnly(key), now)
}

// open is Open with a say in whom the signature must name.
func open(sealed []byte, key *PrivateKey, trusted []*PublicKey, recipients func(*packet.Signature) error, now time.Time) ([]byte, error) {
	if len(sealed) > maxSealed {
		return nil, fmt.Errorf("open: more than %d bytes", maxSealed)
	}
	ring := openpgp.EntityList{key.entity}
	for _, t := range trusted {
		ring = append(ring, t.entity)
	}
	refuse := func([]openpgp.Key, bool) ([]byte, error) { return nil, errAsked }
	message, err := openpgp.ReadMessage(bytes.NewReader(sealed), ring, refuse, config(now.Add(clockSkew)))
	switch {
	case errors.Is(err, errAsked), errors.Is(err, pgperrors.ErrKeyIncorrect):
		return nil, fmt.Errorf("open: %w", ErrNotForUs)
	case err != nil:
		return nil, fmt.Errorf("open: damaged message: %w", err)
	case !message.IsEncrypted || message.IsSymmetricallyEncrypted:
		return nil, fmt.Errorf("open: %w: it is not encrypted to a key", ErrNotForUs)
	}
	plain, err := io.ReadAll(io.LimitReader(message.UnverifiedBody, MaxPlain+1))
	switch {
	case err != nil:
		clear(plain)
		return nil, fmt.Errorf("open: damaged message: %w", err)
	case len(plain) > MaxPlain:
		clear(plain)
		return nil, fmt.Errorf("open: more than %d bytes inside", MaxPlain)
	}
	if err := checkSigned(message, trusted, recipients); err != nil {
		clear(plain)
		return nil, fmt.Errorf("open: %w", err)
	}
	return plain, nil
}

// namesOnly wants a signature to name key as the one recipient.
func namesOnly(key *PrivateKey) func(*packet.Signature) error {
	return func(s *packet.Signature) error {
		if len(s.IntendedRecipients) != 1 || !bytes.Equal(s.IntendedRecipients[0].Fingerprint, key.entity.PrimaryKey.Fingerprint) {
			return fmt.Errorf("%w: it must name this recipient and no other", ErrSignature)
		}
		return nil
	}
}

// checkSigned holds the signature of a message that was read to its end against the trusted keys. The ring that it
// was verified with also holds the recipient's own key, which must not count.
func checkSigned(message *openpgp.MessageDetails, trusted []*PublicKey, recipients func(*packet.Signature) error) error {
	switch {
	case !message.IsSigned || len(message.SignatureCandidates) != 1:
		return fmt.Errorf("%w: it must hold exactly one", ErrSignature)
	case message.SignatureError != nil:
		return fmt.Errorf("%w: %w", ErrSignature, message.SignatureError)
	case !message.IsVerified || message.SignedBy == nil || message.Signature == nil:
		return ErrSignature
	}
	if err := recipients(message.Signature); err != nil {
		return err
	}
	signer := fingerprint(message.SignedBy.Entity)
	if !slices.ContainsFunc(trusted, func(t *PublicKey) bool { return t.Fingerprint() == signer }) {
		return fmt.Errorf("%w: made by a key that is not trusted", ErrSignature)
	}
	return nil
}

// SignBinary is Sign without the armor, for signatures of which there are many.
func SignBinary(domain string, data []byte, signer *PrivateKey, now time.Time) ([]byte, error) {
	var out bytes.Buffer
	if err := detachSign(&out, domain, data, signer, now); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return out.Bytes(), nil
}

func detachSign(w io.Writer, domain string, data []byte, signer *PrivateKey, now time.Time) error {
	return openpgp.DetachSignWithParams(w, []*openpgp.Entity{signer.entity}, signed(domain, data),
		&openpgp.SignParams{Config: config(notBefore(now, signer.entity))})
}

// Sign makes an armored detached signature over domain followed by data. The domain keeps a signature of one kind
// of document from being used for another; Git commits have none.
func Sign(domain string, data []byte, signer *PrivateKey, now time.Time) ([]byte, error) {
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.SignatureType, nil)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	err = detachSign(w, domain, data, signer, now)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}

func signed(domain string, data []byte) io.Reader {
	return io.MultiReader(bytes.NewReader([]byte(domain)), bytes.NewReader(data))
}

// Verify checks that sig is exactly one signature, armored or not, over domain followed by data, made by one of the trusted
// keys and not later than a day from now, and returns that key's fingerprint. Every error wraps ErrSignature.
func Verify(domain string, data, sig []byte, trusted []*PublicKey, now time.Time) (string, error) {
	if len(sig) > maxSignature {
		return "", fmt.Errorf("%w: more than %d bytes", ErrSignature, maxSignature)
	}
	body := sig
	if len(sig) == 0 || sig[0]&0x80 == 0 { // each packet starts with that bit set (RFC 4880, section 4.2)
		var err error
		if body, err = unarmor(sig, openpgp.SignatureType); err != nil {
			return "", fmt.Errorf("%w: %w", ErrSignature, err)
		}
	}
	if err := oneSignature(body); err != nil {
		return "", err
	}
	ring := make(openpgp.EntityList, 0, len(trusted))
	for _, t := range trusted {
		ring = append(ring, t.entity)
	}
	_, signer, err := openpgp.VerifyDetachedSignature(ring, signed(domain, data), bytes.NewReader(body), config(now.Add(clockSkew)))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return fingerprint(signer), nil
}

// oneSignature refuses anything but a single signature packet: OpenPGP itself takes the first that verifies.
func oneSignature(body []byte) error {
	packets := packet.NewReader(bytes.NewReader(body))
	p, err := packets.Next()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if s, ok := p.(*packet.Signature); !ok || s.SigType != packet.SigTypeBinary {
		return fmt.Errorf("%w: it is not a signature over a document", ErrSignature)
	}
	if _, err := packets.Next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it must be exactly one", ErrSignature)
	}
	return nil
}
