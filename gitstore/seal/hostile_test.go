// This file makes the messages, signatures and keys that this package would never make, and holds that they are
// refused.

package seal_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/certferry/certferry/gitstore/seal"
)

// encrypt writes plain as a message with everything that the library lets one choose.
func encrypt(tb testing.TB, plain []byte, config *packet.Config, by []*seal.PrivateKey, to ...*seal.PrivateKey) []byte {
	tb.Helper()
	config.Time = func() time.Time { return start }
	params := &openpgp.EncryptParams{EncryptionTime: &time.Time{}, Config: config}
	for _, key := range by {
		params.Signers = append(params.Signers, entity(tb, key))
	}
	var recipients []*openpgp.Entity
	for _, key := range to {
		recipients = append(recipients, entity(tb, key))
	}
	var out bytes.Buffer
	w, err := openpgp.EncryptWithParams(&out, recipients, nil, params)
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = w.Write(plain)
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func signOnly(tb testing.TB, by *seal.PrivateKey) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := openpgp.SignWithParams(&out, []*openpgp.Entity{entity(tb, by)}, &openpgp.SignParams{
		Config: &packet.Config{Time: func() time.Time { return start }},
	})
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = w.Write([]byte("not encrypted"))
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func byPassphrase(tb testing.TB, by *seal.PrivateKey) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := openpgp.SymmetricallyEncryptWithParams([]byte("passphrase"), &out, &openpgp.EncryptParams{
		Signers: []*openpgp.Entity{entity(tb, by)}, Config: &packet.Config{Time: func() time.Time { return start }},
	})
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = w.Write([]byte("by passphrase"))
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestOpenRefusesOtherProfiles(t *testing.T) {
	t.Parallel()
	hub, second, web1, web2 := newKey(t, "hub"), newKey(t, "second"), newKey(t, "web-1"), newKey(t, "web-2")
	one := []*seal.PrivateKey{hub}
	unnamed := false
	zip := func() *packet.Config { return &packet.Config{DefaultCompressionAlgo: packet.CompressionZLIB} }
	if got, err := seal.Open(encrypt(t, []byte("x"), &packet.Config{}, one, web1), web1, keys(hub), start); err != nil || string(got) != "x" {
		t.Fatalf("the means of this test: %q %v", got, err)
	}
	for name, tt := range map[string]struct {
		data []byte
		want error // nil for any
	}{
		"no recipient named": {encrypt(t, []byte("x"), &packet.Config{CheckIntendedRecipients: &unnamed}, one, web1), seal.ErrSignature},
		"two recipients":     {encrypt(t, []byte("x"), &packet.Config{}, one, web1, web2), seal.ErrSignature},
		"two signers":        {encrypt(t, []byte("x"), &packet.Config{}, []*seal.PrivateKey{hub, second}, web1), seal.ErrSignature},
		"too large inside":   {encrypt(t, make([]byte, seal.MaxPlain+1), &packet.Config{}, one, web1), nil},
		"bomb":               {encrypt(t, make([]byte, 4<<20), zip(), one, web1), nil},
		"not OpenPGP":        {[]byte("plain"), nil},
		"empty":              {nil, nil},
	} {
		got, err := seal.Open(tt.data, web1, keys(hub, second), start)
		if err == nil || got != nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %d bytes, %v, want %v", name, len(got), err, tt.want)
		}
		if tt.want == nil && errors.Is(err, seal.ErrNotForUs) {
			t.Errorf("%s: %v: that is damage, not another recipient", name, err)
		}
	}
}

// TestTrustedKeysDoNotOpen holds that a program which trusts its own key, as the hub does, does not take what was
// sealed to it for something sealed to the key at hand.
func TestTrustedKeysDoNotOpen(t *testing.T) {
	t.Parallel()
	hub, web := newKey(t, "hub"), newKey(t, "web-1")
	if _, err := seal.Open(sealed(t, hub, hub), web, keys(hub), start); !errors.Is(err, seal.ErrNotForUs) {
		t.Errorf("opened by a trusted key: %v", err)
	}
}

func TestVerifyRefusesTextSignatures(t *testing.T) {
	t.Parallel()
	hub := newKey(t, "hub")
	var out bytes.Buffer
	err := openpgp.DetachSignWithParams(&out, []*openpgp.Entity{entity(t, hub)}, bytes.NewReader([]byte("a\nb")), &openpgp.SignParams{
		TextSig: true, Config: &packet.Config{Time: func() time.Time { return start }},
	})
	if err != nil {
		t.Fatal(err)
	}
	// A text signature would also hold for other line ends.
	if _, err := seal.Verify("", []byte("a\nb"), asSignature(t, out.Bytes()), keys(hub), start); !errors.Is(err, seal.ErrSignature) {
		t.Errorf("text signature: %v", err)
	}
	for name, data := range map[string][]byte{"no packet": nil, "damaged packet": {0xc2, 0x01, 0x04}} {
		if _, err := seal.Verify("", []byte("x"), asSignature(t, data), keys(hub), start); !errors.Is(err, seal.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := seal.Verify("", []byte("x"), []byte("-----BEGIN PGP SIGNATURE-----\n\nwnU=\n=AAAA\n-----END PGP SIGNATURE-----\n"), keys(hub), start); !errors.Is(err, seal.ErrSignature) {
		t.Errorf("damaged armor: %v", err)
	}
}

// armored writes keys in one block, with their secret halves where kind says so.
func armored(tb testing.TB, label string, secret bool, all ...*openpgp.Entity) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := armor.Encode(&out, label, nil)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range all {
		if secret {
			err = errors.Join(err, e.SerializePrivateWithoutSigning(w, nil))
		} else {
			err = errors.Join(err, e.Serialize(w))
		}
	}
	if err := errors.Join(err, w.Close()); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestParseRefusesOtherKeys(t *testing.T) {
	t.Parallel()
	profile := func() *packet.Config {
		return &packet.Config{
			Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519, Time: func() time.Time { return start },
		}
	}
	generate := func(config *packet.Config) *openpgp.Entity {
		e, err := openpgp.NewEntity("x", "", "", config)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	year := profile()
	year.KeyLifetimeSecs = 365 * 24 * 3600
	newer := profile()
	newer.Algorithm = packet.PubKeyAlgoEd25519
	sixth := profile()
	sixth.Algorithm, sixth.V6Keys = packet.PubKeyAlgoEd25519, true
	bare := generate(profile())
	bare.Subkeys = nil
	locked := generate(profile())
	if err := locked.EncryptPrivateKeys([]byte("passphrase"), nil); err != nil {
		t.Fatal(err)
	}
	half := generate(profile())
	if err := half.Subkeys[0].PrivateKey.Encrypt([]byte("passphrase")); err != nil {
		t.Fatal(err)
	}
	good := generate(profile())
	for name, e := range map[string]*openpgp.Entity{
		"expiring": generate(year), "Ed25519 of RFC 9580": generate(newer), "version 6": generate(sixth), "no subkey": bare,
	} {
		if _, err := seal.ParsePublicKey(armored(t, openpgp.PublicKeyType, false, e)); err == nil {
			t.Errorf("public key, %s: no error", name)
		}
		if _, err := seal.ParsePrivateKey(armored(t, openpgp.PrivateKeyType, true, e)); err == nil {
			t.Errorf("private key, %s: no error", name)
		}
	}
	for name, data := range map[string][]byte{
		"two in one block":  armored(t, openpgp.PublicKeyType, false, good, generate(profile())),
		"none in the block": armored(t, openpgp.PublicKeyType, false),
		"with its secret":   armored(t, openpgp.PublicKeyType, true, good),
		"two blocks":        append(armored(t, openpgp.PublicKeyType, false, good), armored(t, openpgp.PublicKeyType, false, good)...),
		"damaged armor":     []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!\n-----END PGP PUBLIC KEY BLOCK-----"),
	} {
		if _, err := seal.ParsePublicKey(data); err == nil {
			t.Errorf("public key, %s: no error", name)
		}
	}
	for name, data := range map[string][]byte{
		"locked":          armored(t, openpgp.PrivateKeyType, true, locked),
		"half locked":     armored(t, openpgp.PrivateKeyType, true, half),
		"a public key":    armored(t, openpgp.PrivateKeyType, false, good),
		"the other label": armored(t, openpgp.PublicKeyType, true, good),
	} {
		if _, err := seal.ParsePrivateKey(data); err == nil {
			t.Errorf("private key, %s: no error", name)
		}
	}
	if _, err := seal.ParsePrivateKey(armored(t, openpgp.PrivateKeyType, true, good)); err != nil {
		t.Errorf("the means of this test: %v", err)
	}
	if _, err := seal.Generate("not\x00a name", start); err == nil {
		t.Error("a key with an impossible name was made")
	}
}

// TestKeysServeManyGoroutines lets the race detector look: a hub seals for thousands of servers with one key.
func TestKeysServeManyGoroutines(t *testing.T) {
	t.Parallel()
	hub, web := newKey(t, "hub"), newKey(t, "web-1")
	public, err := web.Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := seal.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			message, err := seal.Seal([]byte("x"), parsed, hub, start)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := seal.Open(message, web, keys(hub), start); err != nil {
				t.Error(err)
			}
			sig, err := seal.Sign("", []byte("x"), hub, start)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := seal.Verify("", []byte("x"), sig, append(keys(hub), parsed), start); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// entity reads a key into the library's own type, for messages that this package would never make.
func entity(tb testing.TB, key *seal.PrivateKey) *openpgp.Entity {
	tb.Helper()
	data, err := key.Armor()
	if err != nil {
		tb.Fatal(err)
	}
	list, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	if err != nil {
		tb.Fatal(err)
	}
	return list[0]
}

func encryptOnly(tb testing.TB, to *seal.PrivateKey) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := openpgp.EncryptWithParams(&out, []*openpgp.Entity{entity(tb, to)}, nil, &openpgp.EncryptParams{EncryptionTime: &time.Time{}})
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = w.Write([]byte("unsigned"))
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// rewrap forwards a message to another recipient without touching its signature, as its first recipient can.
func rewrap(tb testing.TB, message []byte, from, to *seal.PrivateKey) []byte {
	tb.Helper()
	config := &packet.Config{Time: func() time.Time { return start }, CacheSessionKey: true}
	md, err := openpgp.ReadMessage(bytes.NewReader(message), openpgp.EntityList{entity(tb, from)}, nil, config)
	if err != nil {
		tb.Fatal(err)
	}
	target, ok := entity(tb, to).EncryptionKey(time.Time{}, config)
	if !ok {
		tb.Fatal("no encryption key")
	}
	var out bytes.Buffer
	if err := packet.SerializeEncryptedKey(&out, target.PublicKey, md.DecryptedWithAlgorithm, md.SessionKey, config); err != nil {
		tb.Fatal(err)
	}
	body := packet.NewOpaqueReader(bytes.NewReader(message))
	for {
		p, err := body.Next()
		if err != nil {
			break
		}
		if p.Tag != 1 { // the encrypted session key of the first recipient
			if err := p.Serialize(&out); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return out.Bytes()
}

func body(tb testing.TB, armored []byte) []byte {
	tb.Helper()
	block, err := armor.Decode(bytes.NewReader(armored))
	if err != nil {
		tb.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(block.Body); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func asSignature(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.SignatureType, nil)
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = w.Write(data)
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func both(tb testing.TB, a, b []byte) []byte {
	tb.Helper()
	return asSignature(tb, append(body(tb, a), body(tb, b)...))
}

func armoredAsSignature(tb testing.TB, key *seal.PrivateKey) []byte {
	tb.Helper()
	public, err := key.Public().Armor()
	if err != nil {
		tb.Fatal(err)
	}
	return asSignature(tb, body(tb, public))
}
