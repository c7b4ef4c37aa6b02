package seal_test

import (
	"bytes"
	"errors"
	"os"
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
		"not encrypted":      {signOnly(t, hub), web1, keys(hub), seal.ErrNotForUs},
		"by passphrase":      {byPassphrase(t, hub), web1, keys(hub), seal.ErrNotForUs},
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

// TestGoldenKeyAndSignature holds that what an earlier build wrote is read by every later one. The private half of
// this key was thrown away.
func TestGoldenKeyAndSignature(t *testing.T) {
	t.Parallel()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	key, err := seal.ParsePublicKey(read("hub.asc"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := key.Armor(); err != nil || !bytes.Equal(again, read("hub.asc")) {
		t.Errorf("the key is written in another form: %v\n%s", err, again)
	}
	const fingerprint = "82DF831AB6E20316D97870A4433174DCB6B3B934"
	got, err := seal.Verify("certferry-manifest-v1\n", []byte("{\"format\":1}\n"), read("document.sig"), []*seal.PublicKey{key}, start)
	if err != nil || got != fingerprint {
		t.Errorf("verified by %s: %v, want %s", got, err, fingerprint)
	}
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

func FuzzParsePrivateKey(f *testing.F) {
	secret, err := newKey(f, "hub").Armor()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(secret)
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := seal.ParsePrivateKey(data)
		if err != nil {
			return
		}
		if _, err := key.Public().Armor(); err != nil {
			t.Errorf("a key that was read cannot be written: %v", err)
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

func TestBinarySignature(t *testing.T) {
	t.Parallel()
	hub := newKey(t, "hub")
	sig, err := seal.SignBinary("domain\n", []byte("data"), hub, start)
	if err != nil {
		t.Fatal(err)
	}
	if len(sig) > 120 {
		t.Errorf("%d bytes", len(sig))
	}
	if by, err := seal.Verify("domain\n", []byte("data"), sig, keys(hub), start); err != nil || by != hub.Fingerprint() {
		t.Errorf("%s %v", by, err)
	}
	for name, bad := range map[string][]byte{
		"two": append(append([]byte(nil), sig...), sig...), "cut": sig[:len(sig)-1], "a byte more": append(append([]byte(nil), sig...), 0xc2),
		"without its first byte": sig[1:], "a key": body(t, armoredAsSignature(t, hub)),
	} {
		if _, err := seal.Verify("domain\n", []byte("data"), bad, keys(hub), start); !errors.Is(err, seal.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := seal.Verify("", []byte("data"), sig, keys(hub), start); !errors.Is(err, seal.ErrSignature) {
		t.Errorf("another domain: %v", err)
	}
}
