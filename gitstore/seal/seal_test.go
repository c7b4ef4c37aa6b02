package seal_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/certferry/certferry/gitstore/seal"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newKey(tb testing.TB, name string) *seal.PrivateKey {
	tb.Helper()
	key, err := seal.Generate(name, start)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func keys(all ...*seal.PrivateKey) []*seal.PublicKey {
	var public []*seal.PublicKey
	for _, k := range all {
		public = append(public, k.Public())
	}
	return public
}

func sealed(tb testing.TB, to, by *seal.PrivateKey) []byte {
	tb.Helper()
	data, err := seal.Seal([]byte("the plain text"), to.Public(), by, start)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestKeysSurviveArmor(t *testing.T) {
	t.Parallel()
	key := newKey(t, "web-1")
	secret, err := key.Armor()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	again, err := seal.ParsePrivateKey(secret)
	if err != nil || again.Fingerprint() != key.Fingerprint() || len(key.Fingerprint()) != 40 {
		t.Fatalf("private key: %v", err)
	}
	if p, err := seal.ParsePublicKey(public); err != nil || p.Fingerprint() != key.Fingerprint() {
		t.Errorf("public key: %v", err)
	}
	hub := newKey(t, "hub")
	if got, err := seal.Open(sealed(t, key, hub), again, keys(hub), start); err != nil || string(got) != "the plain text" {
		t.Errorf("opened by the key read back: %q %v", got, err)
	}
	rsa, err := openpgp.NewEntity("rsa", "", "", &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048})
	if err != nil {
		t.Fatal(err)
	}
	var other bytes.Buffer
	w, err := armor.Encode(&other, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rsa.Serialize(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"private as public": secret, "nothing": nil, "text": []byte("x"), "two": append(public, public...),
		"text around": append([]byte("x\n"), public...), "damaged": []byte(strings.Replace(string(public), "\n\n", "\n\nAAAA", 1)),
		"RSA": other.Bytes(), "large": bytes.Repeat([]byte("x"), 1<<20),
	} {
		if _, err := seal.ParsePublicKey(data); err == nil {
			t.Errorf("public key %s: no error", name)
		}
	}
	if _, err := seal.ParsePrivateKey(public); err == nil {
		t.Error("a public key was read as a private one")
	}
}

func TestOpenRefusesWhatIsNotForUsOrNotTrusted(t *testing.T) {
	t.Parallel()
	hub, web1, web2, eve := newKey(t, "hub"), newKey(t, "web-1"), newKey(t, "web-2"), newKey(t, "eve")
	message := sealed(t, web1, hub)
	for name, tt := range map[string]struct {
		data    []byte
		key     *seal.PrivateKey
		trusted []*seal.PublicKey
		want    error
	}{
		"another server's":   {message, web2, keys(hub), seal.ErrNotForUs},
		"untrusted signer":   {message, web1, keys(eve), seal.ErrSignature},
		"nobody is trusted":  {message, web1, nil, seal.ErrSignature},
		"signed by itself":   {sealed(t, web1, web1), web1, keys(hub), seal.ErrSignature},
		"signed by a server": {sealed(t, web1, web2), web1, keys(hub), seal.ErrSignature},
		"re-wrapped":         {rewrap(t, message, web1, web2), web2, keys(hub), seal.ErrSignature},
		"not encrypted":      {[]byte("plain"), web1, keys(hub), seal.ErrNotForUs},
		"empty":              {nil, web1, keys(hub), seal.ErrNotForUs},
		"unsigned":           {encryptOnly(t, web1), web1, keys(hub), seal.ErrSignature},
	} {
		if got, err := seal.Open(tt.data, tt.key, tt.trusted, start); !errors.Is(err, tt.want) || got != nil {
			t.Errorf("%s: %q %v, want %v", name, got, err, tt.want)
		}
	}
	if _, err := seal.Open(make([]byte, 2<<20), web1, keys(hub), start); err == nil {
		t.Error("2 MiB: no error")
	}
	if _, err := seal.Seal(make([]byte, 1<<20), web1.Public(), hub, start); err == nil {
		t.Error("1 MiB was sealed")
	}
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

func TestEveryFlippedByteIsFound(t *testing.T) {
	t.Parallel()
	hub, web := newKey(t, "hub"), newKey(t, "web-1")
	message := sealed(t, web, hub)
	for i := range message {
		damaged := bytes.Clone(message)
		damaged[i] ^= 0x55
		if got, err := seal.Open(damaged, web, keys(hub), start); err == nil && string(got) != "the plain text" {
			t.Fatalf("byte %d: other text was opened", i)
		}
	}
	for n := range message {
		if _, err := seal.Open(message[:n], web, keys(hub), start); err == nil {
			t.Fatalf("%d of %d bytes were opened", n, len(message))
		}
	}
}

func TestClocksApart(t *testing.T) {
	t.Parallel()
	hub, web := newKey(t, "hub"), newKey(t, "web-1")
	message := sealed(t, web, hub)
	sig, err := seal.Sign("d\n", []byte("x"), hub, start)
	if err != nil {
		t.Fatal(err)
	}
	for ahead, good := range map[time.Duration]bool{
		-23 * time.Hour: true, 0: true, 24 * time.Hour: true, 20 * 365 * 24 * time.Hour: true, -48 * time.Hour: false,
	} {
		_, openErr := seal.Open(message, web, keys(hub), start.Add(ahead))
		_, verifyErr := seal.Verify("d\n", []byte("x"), sig, keys(hub), start.Add(ahead))
		if (openErr == nil) != good || (verifyErr == nil) != good {
			t.Errorf("clock %s apart: open %v, verify %v", ahead, openErr, verifyErr)
		}
	}
	// A hub whose clock was set back below its key's birth still makes signatures that count.
	early, err := seal.Sign("", []byte("x"), hub, start.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Verify("", []byte("x"), early, keys(hub), start); err != nil {
		t.Errorf("clock set back: %v", err)
	}
}

func TestVerifyTakesOneSignatureOfOneDomain(t *testing.T) {
	t.Parallel()
	hub, eve := newKey(t, "hub"), newKey(t, "eve")
	sign := func(by *seal.PrivateKey) []byte {
		sig, err := seal.Sign("certferry-manifest-v1\n", []byte("{}"), by, start)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	good := sign(hub)
	fingerprint, err := seal.Verify("certferry-manifest-v1\n", []byte("{}"), good, keys(eve, hub), start)
	if err != nil || fingerprint != hub.Fingerprint() {
		t.Errorf("good signature: %s %v", fingerprint, err)
	}
	for name, tt := range map[string]struct {
		domain, data string
		sig          []byte
		trusted      []*seal.PublicKey
	}{
		"another domain": {"certferry-keyring-v1\n", "{}", good, keys(hub)},
		"no domain":      {"", "certferry-manifest-v1\n{} ", good, keys(hub)},
		"other bytes":    {"certferry-manifest-v1\n", "{ }", good, keys(hub)},
		"another key":    {"certferry-manifest-v1\n", "{}", sign(eve), keys(hub)},
		"nobody":         {"certferry-manifest-v1\n", "{}", good, nil},
		"two armors":     {"certferry-manifest-v1\n", "{}", append(bytes.Clone(good), sign(eve)...), keys(hub)},
		"two in one":     {"certferry-manifest-v1\n", "{}", both(t, sign(eve), good), keys(hub)},
		"nothing":        {"certferry-manifest-v1\n", "{}", nil, keys(hub)},
		"text":           {"certferry-manifest-v1\n", "{}", []byte("signed, the hub"), keys(hub)},
		"a key":          {"certferry-manifest-v1\n", "{}", armoredAsSignature(t, hub), keys(hub)},
		"large":          {"certferry-manifest-v1\n", "{}", bytes.Repeat(good, 100), keys(hub)},
	} {
		if _, err := seal.Verify(tt.domain, []byte(tt.data), tt.sig, tt.trusted, start); !errors.Is(err, seal.ErrSignature) {
			t.Errorf("%s: %v, want ErrSignature", name, err)
		}
	}
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

// TestGPGReadsAll holds the profile: what operators have is gpg 2.2.
func TestGPGReadsAll(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("skipped: gpg is not installed")
	}
	home := t.TempDir()
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	gpg := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--trust-model", "always", "--faked-system-time", "20261123T130000!"}, args...)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("gpg %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
		}
		return stdout.String()
	}
	t.Cleanup(func() { _ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	write := func(name string, data []byte) string {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hub, escrow := newKey(t, "hub"), newKey(t, "escrow")
	secret, err := escrow.Armor()
	if err != nil {
		t.Fatal(err)
	}
	public, err := hub.Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := seal.Sign("", []byte("document"), hub, start)
	if err != nil {
		t.Fatal(err)
	}
	gpg("--import", write("escrow.asc", secret), write("hub.asc", public))
	if got := gpg("--decrypt", write("bundle.pgp", sealed(t, escrow, hub))); got != "the plain text" {
		t.Errorf("gpg decrypted %q", got)
	}
	gpg("--verify", write("document.asc", sig), write("document", []byte("document")))
}

func FuzzOpen(f *testing.F) {
	hub, web := newKey(f, "hub"), newKey(f, "web-1")
	f.Add(sealed(f, web, hub))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := seal.Open(data, web, keys(hub), start); err == nil && string(got) != "the plain text" {
			t.Errorf("opened %q", got)
		}
	})
}

func FuzzVerify(f *testing.F) {
	hub := newKey(f, "hub")
	sig, err := seal.Sign("", []byte("x"), hub, start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("x"), sig)
	f.Fuzz(func(t *testing.T, data, sig []byte) {
		if _, err := seal.Verify("", data, sig, keys(hub), start); err == nil && string(data) != "x" {
			t.Errorf("verified %q", data)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	public, err := newKey(f, "hub").Public().Armor()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(public)
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := seal.ParsePublicKey(data); err == nil && len(key.Fingerprint()) != 40 {
			t.Errorf("fingerprint %q", key.Fingerprint())
		}
	})
}
