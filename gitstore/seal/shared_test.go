package seal_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/certferry/certferry/gitstore/seal"
)

func shared(tb testing.TB, by *seal.PrivateKey, to ...*seal.PrivateKey) (body []byte, packets [][]byte) {
	tb.Helper()
	body, packets, err := seal.SealShared([]byte("the plain text"), keys(to...), by, start)
	if err != nil {
		tb.Fatal(err)
	}
	if len(packets) != len(to) {
		tb.Fatalf("%d key packets for %d recipients", len(packets), len(to))
	}
	return body, packets
}

func TestSharedBodyOpensForEachRecipient(t *testing.T) {
	t.Parallel()
	hub := newKey(t, "hub")
	var servers []*seal.PrivateKey
	for range 9 {
		servers = append(servers, newKey(t, "web"))
	}
	body, packets := shared(t, hub, servers...)
	for i, s := range servers {
		got, err := seal.OpenShared(packets[i], body, s, keys(hub), start)
		if err != nil || string(got) != "the plain text" {
			t.Fatalf("server %d: %q %v", i, got, err)
		}
		if len(packets[i]) > 100 {
			t.Errorf("the key packet of server %d has %d bytes", i, len(packets[i]))
		}
	}
	if bytes.Contains(body, []byte("plain")) {
		t.Error("the body is not encrypted")
	}
	if _, err := seal.OpenShared(packets[0], body, servers[1], keys(hub), start); !errors.Is(err, seal.ErrNotForUs) {
		t.Errorf("opened with another's packet: %v", err)
	}
	other, _ := shared(t, hub, servers...)
	if _, err := seal.OpenShared(packets[0], other, servers[0], keys(hub), start); err == nil {
		t.Error("a packet opens the body of another message")
	}
}

func TestOpenSharedRefuses(t *testing.T) {
	t.Parallel()
	hub, web1, web2, eve := newKey(t, "hub"), newKey(t, "web-1"), newKey(t, "web-2"), newKey(t, "eve")
	body, packets := shared(t, hub, web1, web2)
	alone := sealed(t, web1, hub)
	wrapped, rest := cut(t, alone)
	unsigned, unsignedBody := cut(t, encryptOnly(t, web1))
	for name, tt := range map[string]struct {
		key, body []byte
		trusted   []*seal.PublicKey
		want      error // nil for any
	}{
		"untrusted signer":         {packets[0], body, keys(eve), seal.ErrSignature},
		"nobody trusted":           {packets[0], body, nil, seal.ErrSignature},
		"unsigned":                 {unsigned, unsignedBody, keys(hub), seal.ErrSignature},
		"made for one":             {wrapped, rest, keys(hub), seal.ErrSignature},
		"two packets":              {slices.Concat(packets[0], packets[1]), body, keys(hub), nil},
		"no packet":                {nil, body, keys(hub), nil},
		"no packet, whole message": {nil, alone, keys(hub), nil},
		"packet with its body":     {slices.Concat(packets[0], body), body, keys(hub), nil},
		"body with a packet":       {packets[0], slices.Concat(packets[1], body), keys(hub), nil},
		"no body":                  {packets[0], nil, keys(hub), nil},
		"signed, not encrypted":    {packets[0], signOnly(t, hub), keys(hub), nil},
		"large packet":             {append(slices.Clone(packets[0]), make([]byte, 2<<10)...), body, keys(hub), nil},
		"damaged body":             {packets[0], append(slices.Clone(body[:len(body)-1]), body[len(body)-1]^1), keys(hub), nil},
	} {
		got, err := seal.OpenShared(tt.key, tt.body, web1, tt.trusted, start)
		if err == nil || got != nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %q %v, want %v", name, got, err, tt.want)
		}
	}
	if _, err := seal.Open(slices.Concat(packets[0], body), web1, keys(hub), start); !errors.Is(err, seal.ErrSignature) {
		t.Errorf("opened as if sealed to one server: %v", err)
	}
	if _, _, err := seal.SealShared(make([]byte, seal.MaxPlain+1), keys(web1), hub, start); err == nil {
		t.Error("too large: no error")
	}
}

// cut takes a message apart into its key packet and the rest.
func cut(tb testing.TB, message []byte) (key, rest []byte) {
	tb.Helper()
	var first bytes.Buffer
	p, err := packet.NewOpaqueReader(bytes.NewReader(message)).Next()
	if err == nil {
		err = p.Serialize(&first)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return first.Bytes(), message[first.Len():]
}

func TestGPGOpensASharedBody(t *testing.T) {
	t.Parallel()
	g := newGnuPG(t)
	hub, web1, web2 := newKey(t, "hub"), newKey(t, "web-1"), newKey(t, "web-2")
	secret, err := web2.Armor()
	if err != nil {
		t.Fatal(err)
	}
	public, err := hub.Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	body, packets := shared(t, hub, web1, web2)
	g.run("--import", g.file("server.asc", secret), g.file("hub.asc", public))
	output, status := g.run("--decrypt", g.file("message.pgp", slices.Concat(packets[1], body)))
	if output != "the plain text" {
		t.Errorf("gpg decrypted %q", output)
	}
	if !strings.Contains(status, "[GNUPG:] VALIDSIG "+hub.Fingerprint()) || !strings.Contains(status, "[GNUPG:] GOODMDC") {
		t.Errorf("gpg does not vouch for signature and integrity:\n%s", status)
	}
	if _, status, err := g.try("--decrypt", g.file("other.pgp", slices.Concat(packets[0], body))); err == nil {
		t.Errorf("gpg opened another server's:\n%s", status)
	}
}

func BenchmarkSealShared(b *testing.B) {
	hub := newKey(b, "hub")
	var servers []*seal.PublicKey
	for range 1000 {
		servers = append(servers, newKey(b, "web").Public())
	}
	for b.Loop() {
		if _, _, err := seal.SealShared([]byte("the plain text"), servers, hub, start); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "µs/server")
}
