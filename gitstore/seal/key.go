// Package seal encrypts, signs and verifies: it is the only door to OpenPGP (RFC 4880, as profiled by the design,
// section 4.4).
//
// The profile is one that gpg 2.2 reads: version 4 keys on Curve25519, SHA-256, AES-256, no AEAD. Keys do not
// expire; which hub keys are valid is said by the keyring, so that no clock can stop a deployment. Only one
// signature by a key that the caller trusts is ever accepted.
package seal

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// maxKey bounds an armored key, in bytes.
const maxKey = 64 << 10

// PrivateKey signs and opens.
type PrivateKey struct{ entity *openpgp.Entity }

// PublicKey verifies, and is sealed to.
type PublicKey struct{ entity *openpgp.Entity }

// config is the profile at a moment.
func config(at time.Time) *packet.Config {
	limit := int64(MaxPlain)
	// Ed25519 needs no salt (RFC 8032), and the library's own, a notation of 52 bytes in each signature, would be a tenth
	// of what a renewal costs for each server.
	salted := false
	return &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519,
		DefaultHash: crypto.SHA256, DefaultCipher: packet.CipherAES256,
		DefaultCompressionAlgo:                packet.CompressionNone,
		MaxDecompressedMessageSize:            &limit,
		NonDeterministicSignaturesViaNotation: &salted,
		Time:                                  func() time.Time { return at },
	}
}

// Generate makes a key pair called name: a primary key that signs and a subkey that is encrypted to. It never
// expires and has no passphrase; whoever stores it guards it.
func Generate(name string, now time.Time) (*PrivateKey, error) {
	entity, err := openpgp.NewEntity(name, "", "", config(now))
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	// The library checks a key's own signatures at first use and remembers the result in the key: done once here, so
	// that a key may be used from several goroutines. Parsing a key does the same.
	if _, ok := entity.EncryptionKey(time.Time{}, config(now)); !ok {
		return nil, errors.New("make key: it has no subkey to encrypt to")
	}
	return &PrivateKey{entity}, nil
}

// Public returns the public half, and nothing but it: what is trusted must not also be able to open.
func (k *PrivateKey) Public() *PublicKey {
	public := *k.entity
	public.PrivateKey = nil
	public.Subkeys = slices.Clone(k.entity.Subkeys)
	for i := range public.Subkeys {
		public.Subkeys[i].PrivateKey = nil
	}
	return &PublicKey{&public}
}

// Fingerprint is the primary key's: 40 upper-case hex digits.
func (k *PrivateKey) Fingerprint() string { return fingerprint(k.entity) }

// Fingerprint is the primary key's: 40 upper-case hex digits.
func (k *PublicKey) Fingerprint() string { return fingerprint(k.entity) }

func fingerprint(e *openpgp.Entity) string {
	return strings.ToUpper(hex.EncodeToString(e.PrimaryKey.Fingerprint))
}

// Armor encodes the key pair, the secret half included, as ASCII armor.
func (k *PrivateKey) Armor() ([]byte, error) {
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PrivateKeyType, nil)
	if err == nil {
		err = errors.Join(k.entity.SerializePrivateWithoutSigning(w, nil), w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}

// Armor encodes the public key as ASCII armor.
func (k *PublicKey) Armor() ([]byte, error) {
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
	if err == nil {
		err = errors.Join(k.entity.Serialize(w), w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}

// ParsePrivateKey reads what Armor wrote. The error of a key with a passphrase is ErrProtected: Unlock reads it.
func ParsePrivateKey(armored []byte) (*PrivateKey, error) {
	entity, err := parse(armored, openpgp.PrivateKeyType)
	if err != nil {
		return nil, fmt.Errorf("parse private key: %w", err)
	}
	if locked(entity) {
		return nil, fmt.Errorf("parse private key: %w", ErrProtected)
	}
	return unlocked(entity)
}

// unlocked makes sure that all secret parts are there.
func unlocked(entity *openpgp.Entity) (*PrivateKey, error) {
	if entity.PrivateKey == nil || entity.PrivateKey.Dummy() {
		return nil, errors.New("parse private key: it holds no secret part")
	}
	for _, subkey := range entity.Subkeys {
		if subkey.PrivateKey == nil || subkey.PrivateKey.Encrypted || subkey.PrivateKey.Dummy() {
			return nil, errors.New("parse private key: a subkey holds no secret part")
		}
	}
	return &PrivateKey{entity}, nil
}

// ParsePublicKey reads one public key. A key of another profile, and a private key, are refused.
func ParsePublicKey(armored []byte) (*PublicKey, error) {
	entity, err := parse(armored, openpgp.PublicKeyType)
	if err != nil {
		return nil, fmt.Errorf("parse public key: %w", err)
	}
	if entity.PrivateKey != nil || slices.ContainsFunc(entity.Subkeys, func(s openpgp.Subkey) bool { return s.PrivateKey != nil }) {
		return nil, errors.New("parse public key: it holds a secret part; export the public key only")
	}
	return &PublicKey{entity}, nil
}

// parse reads exactly one key of the profile from exactly one armored block.
func parse(armored []byte, kind string) (*openpgp.Entity, error) {
	if len(armored) > maxKey {
		return nil, fmt.Errorf("it has more than %d bytes", maxKey)
	}
	body, err := unarmor(armored, kind)
	if err != nil {
		return nil, err
	}
	entities, err := openpgp.ReadKeyRing(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	if len(entities) != 1 {
		return nil, errors.New("it must hold exactly one key")
	}
	entity := entities[0]
	if entity.PrimaryKey.Version != 4 || entity.PrimaryKey.PubKeyAlgo != packet.PubKeyAlgoEdDSA {
		return nil, errors.New("it must be a version 4 EdDSA key")
	}
	if _, ok := entity.EncryptionKey(time.Time{}, config(time.Time{})); !ok {
		return nil, errors.New("it has no subkey to encrypt to")
	}
	if expires(entity) {
		return nil, errors.New("it has an expiry date; the keyring says which keys are valid, so make one without")
	}
	return entity, nil
}

// expires says whether the key or a part of it ends by itself. Such a key is refused when it comes in: it would stop
// deployments on the day it ends, and make older signatures worthless.
func expires(entity *openpgp.Entity) bool {
	self := append([]*packet.VerifiableSignature(nil), entity.DirectSignatures...)
	for _, identity := range entity.Identities {
		self = append(self, identity.SelfCertifications...)
	}
	for _, subkey := range entity.Subkeys {
		self = append(self, subkey.Bindings...)
	}
	return slices.ContainsFunc(self, func(s *packet.VerifiableSignature) bool {
		return ends(s.Packet.KeyLifetimeSecs) || ends(s.Packet.SigLifetimeSecs)
	})
}

// ends reads a lifetime: absent and zero mean for ever (RFC 4880, section 5.2.3.6).
func ends(seconds *uint32) bool { return seconds != nil && *seconds != 0 }

// unarmor decodes one armored block; text around it is refused.
func unarmor(armored []byte, kind string) ([]byte, error) {
	trimmed := bytes.TrimSpace(armored)
	if !bytes.HasPrefix(trimmed, []byte("-----BEGIN "+kind+"-----")) || !bytes.HasSuffix(trimmed, []byte("-----END "+kind+"-----")) {
		return nil, fmt.Errorf("it is not one armored %s", strings.ToLower(kind))
	}
	if bytes.Count(trimmed, []byte("-----BEGIN ")) != 1 {
		return nil, errors.New("it holds more than one armored block")
	}
	block, err := armor.Decode(bytes.NewReader(trimmed))
	if err != nil {
		return nil, fmt.Errorf("decode armor: %w", err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(block.Body); err != nil {
		return nil, fmt.Errorf("decode armor: %w", err)
	}
	return out.Bytes(), nil
}
