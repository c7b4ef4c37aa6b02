package inventory_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/inventory"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub/apiv1"
)

// finder finds what it is told to.
type finder struct {
	instances []agent.Instance
	err       error
}

// Find implements agent.Finder.
func (f finder) Find(context.Context) ([]agent.Instance, error) { return f.instances, f.err }

// shown is a prober that shows a leaf for each server name.
type shown map[string]*x509.Certificate

// Probe implements agent.Prober.
func (s shown) Probe(_ context.Context, _, name string) (tls.ConnectionState, error) {
	if leaf := s[name]; leaf != nil {
		return tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}, nil
	}
	return tls.ConnectionState{}, errors.New("refused")
}

type tree struct {
	*testing.T

	dir string
	ca  *deployertest.CA
}

func newTree(t *testing.T) *tree {
	t.Helper()
	return &tree{T: t, dir: t.TempDir(), ca: deployertest.NewCA(t, time.Now())}
}

func (t *tree) write(name string, mode os.FileMode, parts ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.dir, name)
	if err := os.WriteFile(path, slices.Concat(parts...), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func (t *tree) keyOf(b *bundle.Bundle) []byte {
	t.Helper()
	data, err := b.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// pair writes a certificate and its key, and returns the site that uses them.
func (t *tree) pair(name string, b *bundle.Bundle) agent.Site {
	t.Helper()
	return agent.Site{
		Names: b.Leaf.DNSNames, Certificate: t.write(name+".pem", 0o644, b.FullChainPEM()), Key: t.write(name+".key", 0o600, t.keyOf(b)),
		File: "/etc/nginx/sites/" + name, Line: 7, Listeners: []agent.Listener{{Network: "tcp", Address: ":443"}},
	}
}

func scan(t *testing.T, prober agent.Prober, instances ...agent.Instance) apiv1.Inventory {
	t.Helper()
	return inventory.New(inventory.Config{Finders: []agent.Finder{finder{instances: instances}}, Prober: prober, Now: time.Now}).Scan(t.Context(), nil)
}

func kinds(r apiv1.InventoryRecord) string {
	var all []string
	for _, p := range r.Problems {
		all = append(all, string(p.Kind))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// weak makes a self-signed certificate with a short RSA key, as appliances have them.
func weak(t *testing.T) (certificate, key []byte) {
	t.Helper()
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "box"}, DNSNames: []string{"box.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &short.PublicKey, short)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(short)})
}

// TestProblems: each thing that is wrong has its word, and nothing that is wrong ends the scan.
func TestProblems(t *testing.T) {
	t.Parallel()
	f := newTree(t)
	good, other := f.ca.Issue(t, "a.test", "*.a.test"), f.ca.Issue(t, "b.test")
	fifo := filepath.Join(f.dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	short, shortKey := weak(t)
	with := func(change func(*agent.Site)) agent.Site {
		site := f.pair("site"+rand.Text(), good)
		change(&site)
		return site
	}
	for name, c := range map[string]struct {
		site agent.Site
		want string
	}{
		"good":     {f.pair("good", good), ""},
		"wildcard": {with(func(s *agent.Site) { s.Names = []string{"x.a.test", "~^.*$", "_", "*.a.test", "$host"} }), ""},
		"combined": {with(func(s *agent.Site) {
			s.Certificate = f.write("all.pem", 0o600, good.FullChainPEM(), f.keyOf(good))
			s.Key = s.Certificate
		}), ""},
		"chain apart": {with(func(s *agent.Site) {
			s.Certificate = f.write("leaf.pem", 0o644, good.LeafPEM())
			s.Chain = f.write("chain.pem", 0o644, good.ChainPEM())
		}), ""},
		"missing":          {with(func(s *agent.Site) { s.Certificate = filepath.Join(f.dir, "none") }), "unreadable"},
		"a fifo":           {with(func(s *agent.Site) { s.Certificate = fifo }), "unreadable"},
		"garbage":          {with(func(s *agent.Site) { s.Certificate = f.write("garbage", 0o644, []byte("\x00\xff")) }), "malformed"},
		"no key":           {with(func(s *agent.Site) { s.Key = filepath.Join(f.dir, "none") }), "key_missing"},
		"other key":        {with(func(s *agent.Site) { s.Key = f.write("other.key", 0o600, f.keyOf(other)) }), "key_mismatch"},
		"garbage key":      {with(func(s *agent.Site) { s.Key = f.write("bad.key", 0o600, []byte("x")) }), "key_mismatch"},
		"open key":         {with(func(s *agent.Site) { s.Key = f.write("open.key", 0o644, f.keyOf(good)) }), "key_exposed"},
		"other name":       {with(func(s *agent.Site) { s.Names = []string{"c.test"} }), "name_mismatch"},
		"leaf alone":       {with(func(s *agent.Site) { s.Certificate = f.write("alone.pem", 0o644, good.LeafPEM()) }), "chain_incomplete"},
		"wrong chain":      {with(func(s *agent.Site) { s.Certificate = f.write("wrong.pem", 0o644, good.LeafPEM(), other.LeafPEM()) }), "chain_incomplete"},
		"appliance":        {agent.Site{Certificate: f.write("box.pem", 0o644, short), Key: f.write("box.key", 0o600, shortKey)}, "self_signed weak_key"},
		"shown to servers": {with(func(s *agent.Site) { s.Client, s.Names = true, []string{"upstream.test"} }), ""},
	} {
		got := scan(t, nil, agent.Instance{Software: "nginx", PID: 7, Sites: []agent.Site{c.site}})
		if len(got.Certificates) != 1 || kinds(got.Certificates[0]) != c.want {
			t.Errorf("%s: %+v, want %q", name, got.Certificates, c.want)
		}
	}
	later := inventory.New(inventory.Config{
		Finders: []agent.Finder{finder{instances: []agent.Instance{{Sites: []agent.Site{f.pair("late", good)}}}}},
		Now:     func() time.Time { return time.Now().AddDate(1, 0, 0) },
	}).Scan(t.Context(), nil)
	if kinds(later.Certificates[0]) != "expired" {
		t.Errorf("a year later: %+v", later.Certificates)
	}
}

// TestWhatIsServed: a file that a server did not load is told of, and two key types at one place are not.
func TestWhatIsServed(t *testing.T) {
	t.Parallel()
	f := newTree(t)
	loaded, renewed, second := f.ca.Issue(t, "a.test"), f.ca.Issue(t, "b.test"), f.ca.Issue(t, "a.test")
	old := f.ca.Issue(t, "b.test")
	got := scan(t, shown{"a.test": loaded.Leaf, "b.test": old.Leaf}, agent.Instance{Software: "nginx", PID: 7, Sites: []agent.Site{
		f.pair("one", loaded), f.pair("two", renewed), f.pair("three", second),
	}})
	want := map[string]string{"one.pem": "", "two.pem": "not_served", "three.pem": ""}
	for _, r := range got.Certificates {
		if name := filepath.Base(r.Path); kinds(r) != want[name] {
			t.Errorf("%s: %q, want %q", name, kinds(r), want[name])
		}
	}
	// What does not run serves nothing, and nobody is asked.
	if r := scan(t, shown{"b.test": old.Leaf}, agent.Instance{Software: "nginx", Sites: []agent.Site{f.pair("two", renewed)}}).Certificates[0]; kinds(r) != "" {
		t.Errorf("not running: %+v", r)
	}
}

// TestOneRecordPerFile: a file that several sites use, and that is a target, is one record.
func TestOneRecordPerFile(t *testing.T) {
	t.Parallel()
	f := newTree(t)
	b := f.ca.Issue(t, "a.test")
	site := f.pair("one", b)
	other := site
	other.File, other.Line = "/etc/nginx/other", 3
	instances := []agent.Instance{
		{Software: "nginx", Version: "1.22.1", PID: 7, Config: "/etc/nginx/nginx.conf", Sites: []agent.Site{site, other}, Faults: []agent.Fault{{File: "/etc/nginx/x", Line: 2, Message: "odd"}}},
		{Software: "haproxy", Root: "/proc/9/root"},
	}
	got := inventory.New(inventory.Config{
		Finders: []agent.Finder{finder{instances: instances}, finder{err: errors.New("no /proc")}}, Now: time.Now,
	}).Scan(t.Context(), []agent.Target{{Name: "web", Certificate: site.Certificate, Key: site.Key}, {Name: "keystore"}})
	if len(got.Certificates) != 1 {
		t.Fatalf("%+v", got.Certificates)
	}
	r := got.Certificates[0]
	if r.Target != "web" || r.ManagedBy != "certferry" || len(r.Uses) != 2 || r.Uses[1].Line != 3 || r.KeyType != string(bundle.ECDSAP256) ||
		r.LeafSHA256 != b.LeafSHA256() || r.Uses[0].Listeners[0] != ":443" {
		t.Errorf("%+v", r)
	}
	if len(got.Software) != 3 || got.Software[0].Faults[0] != "/etc/nginx/x:2: odd" || !got.Software[1].Container || got.Software[2].Faults[0] != "no /proc" {
		t.Errorf("%+v", got.Software)
	}
}

// TestManagers: who else renews a file is known by its folder.
func TestManagers(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/etc/letsencrypt/live/a.test/fullchain.pem":   "certbot",
		"/root/.acme.sh/a.test_ecc/fullchain.cer":      "acme.sh",
		"/www/server/panel/vhost/cert/a/fullchain.pem": "baota",
		"/opt/1panel/www/sites/a/ssl/fullchain.pem":    "1panel",
		"/etc/nginx/ssl/a.pem":                         "",
	} {
		got := scan(t, nil, agent.Instance{Sites: []agent.Site{{Certificate: path}}})
		if got.Certificates[0].ManagedBy != want {
			t.Errorf("%s: %q, want %q", path, got.Certificates[0].ManagedBy, want)
		}
	}
}
