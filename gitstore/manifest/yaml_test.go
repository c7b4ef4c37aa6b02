package manifest_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
)

// document is what all kinds of YAML have in common.
type document interface{ Encode() ([]byte, error) }

// kinds are a full document of each kind, and its decoder.
func kinds() map[string]struct {
	doc    document
	decode func([]byte) (document, error)
} {
	type kind = struct {
		doc    document
		decode func([]byte) (document, error)
	}
	return map[string]kind{
		"certificate.yaml": {&manifest.Certificate{
			Name: "www", Names: []string{"www.example.com", "example.com"}, KeyType: "ecdsa-p384", Issuer: "letsencrypt",
			Challenge: &manifest.Challenge{Type: "dns-01", Hook: "dns_cf", Credential: "cloudflare"},
			Renewal:   manifest.Renewal{DaysBeforeExpiry: 20, Key: "keep", Paused: true, PausedReason: "rolled back"},
			Deployments: []manifest.Placement{
				{Server: "web-1", Deployer: "nginx", Target: "site"}, {Selector: "role=edge", Deployer: "files", Target: "app"},
			},
		}, func(b []byte) (document, error) { return manifest.DecodeCertificate(b) }},
		"server.yaml": {&manifest.Server{
			Name: "web-1", Labels: map[string]string{"role": "edge"},
			Hold: &manifest.Hold{Commit: strings.Repeat("ab", 20), Reason: "bad chain", By: "ann", Since: start},
		}, func(b []byte) (document, error) { return manifest.DecodeServer(b) }},
		"issuer.yaml": {&manifest.Issuer{
			Name: "letsencrypt", Type: "acmesh",
			ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir", Email: "ops@example.com", Profile: "tlsserver", PreferredChain: "Root X1"},
		}, func(b []byte) (document, error) { return manifest.DecodeIssuer(b) }},
		"issued.yaml": {&manifest.IssuedCertificate{
			Name: "www", Names: []string{"www.example.com"}, Issuer: "letsencrypt", KeyType: "ecdsa-p256", Serial: "04ab",
			NotBefore: start, NotAfter: start.Add(time.Hour), SPKISHA256: hex64, LeafSHA256: hex64,
		}, func(b []byte) (document, error) { return manifest.DecodeIssued(b) }},
	}
}

func TestYAMLGolden(t *testing.T) {
	t.Parallel()
	for name, k := range kinds() {
		data, err := k.doc.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		golden(t, name, data)
		doc, err := k.decode(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again, err := doc.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: encoded again: %v\n%s", name, err, again)
		}
	}
}

func TestYAMLIsStrict(t *testing.T) {
	t.Parallel()
	for name, k := range kinds() {
		data, err := k.doc.Encode()
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		for what, other := range map[string]string{
			"unknown key":   text + "color: red\n",
			"twice":         text + "kind: Certificate\n",
			"two documents": text + "---\n" + text,
			"three dots":    text + "...\n" + text,
			"merge key":     text + "<<: {name: other}\n",
			"tag":           strings.Replace(text, "name: ", "name: !!str ", 1),
			"other case":    strings.Replace(text, "name: ", "Name: ", 1),
			"second anchor": text + "---\n- &a [x, x]\n- [*a, *a]\n",
			"anchor":        strings.Replace(text, "name: ", "name: &a ", 1),
			"other kind":    strings.Replace(text, "kind: ", "kind: X", 1),
			"other version": strings.Replace(text, "certferry/v1", "certferry/v2", 1),
			"no text":       "",
			"not YAML":      "{",
			"a list":        "- a\n",
			"too large":     text + "#" + strings.Repeat("x", 2<<20),
		} {
			if doc, err := k.decode([]byte(other)); err == nil {
				t.Errorf("%s: %s: no error", name, what)
			} else if !reflect.ValueOf(doc).IsNil() {
				t.Errorf("%s: %s: a document beside an error", name, what)
			} else if what == "unknown key" && !strings.Contains(err.Error(), "line ") {
				t.Errorf("%s: %s: %v, want the line", name, what, err)
			}
		}
	}
}

func TestErrorsNameLineAndKey(t *testing.T) {
	t.Parallel()
	text := `apiVersion: certferry/v1
kind: Certificate
name: WWW
names:
  - example.com
  - "bad name"
issuer: ca
renewal:
  paused: false
  key: old
deployments:
  - server: web-1
    deployer: nginx
    target: site
  - deployer: nginx
    target: site
`
	_, err := manifest.DecodeCertificate([]byte(text))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"check certificate: line 3: name: the name may hold",
		"check certificate: line 6: names[1]: the DNS name may hold",
		"check certificate: line 10: renewal.key: must be",
		"check certificate: line 15: deployments[1]: give either",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error without %q:\n%v", want, err)
		}
	}
	_, err = manifest.DecodeCertificate([]byte("apiVersion: certferry/v1\nkind: Certificate\n"))
	if err == nil || !strings.Contains(err.Error(), "line 1: issuer: ") {
		t.Errorf("missing key: %v", err)
	}
	_, err = manifest.DecodeIssued([]byte("name: x\nnotBefore: 2026-11-23T12:00:00Z\nnotAfter: 2026-01-01T00:00:00Z\n"))
	if err == nil || !strings.Contains(err.Error(), "line 2: notBefore, notAfter: ") {
		t.Errorf("two keys at fault: %v", err)
	}
}

// TestErrorsArePrintable holds that a file cannot write to the terminal of who reads the error.
func TestErrorsArePrintable(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"unknown key": `"\e[31mred": x`,
		"twice":       "\"\\e[31m\": x\n\"\\e[31m\": y",
		"value":       `renewal: "\e[31m\n"`,
		"not UTF-8":   "name: \xff\xfe\x1b",
		"long":        strings.Repeat("x", 100000) + ": y",
	} {
		_, err := manifest.DecodeCertificate([]byte(text))
		if err == nil || len(err.Error()) > 600 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Errorf("%s: %.700q", name, err)
		}
	}
}

func TestEncodeWritesNothingTooLarge(t *testing.T) {
	t.Parallel()
	c := &manifest.Certificate{Name: "www", Names: []string{"www.test"}, Issuer: "ca"}
	for i := range 12000 {
		c.Deployments = append(c.Deployments, manifest.Placement{Server: fmt.Sprintf("%s-%d", strings.Repeat("s", 80), i), Deployer: "files", Target: "a"})
	}
	if _, err := c.Encode(); err == nil {
		t.Error("a certificate that cannot be read was written")
	}
}

func TestCertificateRefusesEveryFault(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(c *manifest.Certificate){
		"name":        func(c *manifest.Certificate) { c.Name = "../x" },
		"no names":    func(c *manifest.Certificate) { c.Names = nil },
		"101 names":   func(c *manifest.Certificate) { c.Names = make([]string, 101) },
		"same name":   func(c *manifest.Certificate) { c.Names = []string{"a.test", "a.test"} },
		"key type":    func(c *manifest.Certificate) { c.KeyType = "rsa-1024" },
		"issuer":      func(c *manifest.Certificate) { c.Issuer = "" },
		"days":        func(c *manifest.Certificate) { c.Renewal.DaysBeforeExpiry = 400 },
		"renewal key": func(c *manifest.Certificate) { c.Renewal.Key = "old" },
		"reason":      func(c *manifest.Certificate) { c.Renewal.PausedReason = "a\nb" },
		"placement": func(c *manifest.Certificate) {
			c.Deployments = []manifest.Placement{{Deployer: "nginx", Target: "site"}}
		},
		"both": func(c *manifest.Certificate) {
			c.Deployments = []manifest.Placement{{Server: "a", Selector: "b=c", Deployer: "nginx", Target: "site"}}
		},
		"server": func(c *manifest.Certificate) {
			c.Deployments = []manifest.Placement{{Server: "A", Deployer: "nginx", Target: "s"}}
		},
		"deployer": func(c *manifest.Certificate) {
			c.Deployments = []manifest.Placement{{Server: "a", Deployer: "", Target: "s"}}
		},
		"target": func(c *manifest.Certificate) {
			c.Deployments = []manifest.Placement{{Server: "a", Deployer: "nginx", Target: "/"}}
		},
		"selector": func(c *manifest.Certificate) {
			c.Deployments = []manifest.Placement{{Selector: "a in", Deployer: "nginx", Target: "s"}}
		},
		"placed twice": func(c *manifest.Certificate) {
			p := manifest.Placement{Server: "a", Deployer: "nginx", Target: "s"}
			c.Deployments = []manifest.Placement{p, p}
		},
		"challenge": func(c *manifest.Certificate) { c.Challenge = &manifest.Challenge{Type: "email"} },
		"method":    func(c *manifest.Certificate) { c.Challenge = &manifest.Challenge{Type: "http-01"} },
		"webroot": func(c *manifest.Certificate) {
			c.Challenge = &manifest.Challenge{Type: "http-01", Method: "webroot", Webroot: "/a/../b"}
		},
		"webroot for a shell": func(c *manifest.Certificate) {
			c.Challenge = &manifest.Challenge{Type: "http-01", Method: "webroot", Webroot: "/a'; touch x; '"}
		},
		"webroot elsewhere": func(c *manifest.Certificate) {
			c.Challenge = &manifest.Challenge{Type: "http-01", Method: "stateless", Webroot: "/a"}
		},
		"hook with http": func(c *manifest.Certificate) {
			c.Challenge = &manifest.Challenge{Type: "http-01", Method: "stateless", Hook: "dns_cf"}
		},
		"hook": func(c *manifest.Certificate) { c.Challenge = &manifest.Challenge{Type: "dns-01", Hook: "rm -rf"} },
		"method with dns": func(c *manifest.Certificate) {
			c.Challenge = &manifest.Challenge{Type: "dns-01", Hook: "dns_cf", Method: "webroot"}
		},
		"credential": func(c *manifest.Certificate) {
			c.Challenge = &manifest.Challenge{Type: "dns-01", Hook: "dns_cf", Credential: "../x"}
		},
		"wildcard by http": func(c *manifest.Certificate) {
			c.Names = []string{"*.a.test"}
			c.Challenge = &manifest.Challenge{Type: "http-01", Method: "stateless"}
		},
	} {
		c := &manifest.Certificate{Name: "www", Names: []string{"www.test"}, Issuer: "ca"}
		change(c)
		if _, err := c.Encode(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	both := &manifest.Certificate{Name: "A", Names: []string{"*"}, Issuer: ""}
	if _, err := both.Encode(); err == nil || strings.Count(err.Error(), "check certificate") != 3 {
		t.Errorf("not all faults at once: %v", err)
	}
}

func TestOtherKindsRefuseFaults(t *testing.T) {
	t.Parallel()
	hold := func(change func(*manifest.Hold)) document {
		h := &manifest.Hold{Commit: strings.Repeat("ab", 20), By: "ann", Since: start}
		change(h)
		return &manifest.Server{Name: "w", Hold: h}
	}
	acme := func(change func(*manifest.ACMEIssuer)) document {
		a := &manifest.ACMEIssuer{Directory: "https://ca.example/dir"}
		change(a)
		return &manifest.Issuer{Name: "i", Type: "acmesh", ACME: a}
	}
	many := map[string]string{}
	for n := range 70 {
		many[strings.Repeat("a", n+1)] = "x"
	}
	for what, doc := range map[string]document{
		"label":          &manifest.Server{Name: "w", Labels: map[string]string{"a b": "c"}},
		"Kelvin label":   &manifest.Server{Name: "w", Labels: map[string]string{"a": "\u212a"}},
		"label value":    &manifest.Server{Name: "w", Labels: map[string]string{"a": "ü"}},
		"many labels":    &manifest.Server{Name: "w", Labels: many},
		"hold commit":    hold(func(h *manifest.Hold) { h.Commit = "HEAD" }),
		"hold by":        hold(func(h *manifest.Hold) { h.By = "" }),
		"hold since":     hold(func(h *manifest.Hold) { h.Since = time.Time{} }),
		"hold reason":    hold(func(h *manifest.Hold) { h.Reason = "\x1b" }),
		"issuer type":    &manifest.Issuer{Name: "i", Type: "other"},
		"no acme":        &manifest.Issuer{Name: "i", Type: "acmesh"},
		"acme with ca":   &manifest.Issuer{Name: "i", Type: "privateca", ACME: &manifest.ACMEIssuer{}},
		"ca with acme":   &manifest.Issuer{Name: "i", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://c/d"}, PrivateCA: &manifest.PrivateCAIssuer{}},
		"lifetime":       &manifest.Issuer{Name: "i", Type: "privateca", PrivateCA: &manifest.PrivateCAIssuer{Lifetime: "1s"}},
		"http":           acme(func(a *manifest.ACMEIssuer) { a.Directory = "http://ca.example/dir" }),
		"quote":          acme(func(a *manifest.ACMEIssuer) { a.Directory = "https://ca.example/'dir" }),
		"user":           acme(func(a *manifest.ACMEIssuer) { a.Directory = "https://a:b@ca.example/dir" }),
		"e-mail":         acme(func(a *manifest.ACMEIssuer) { a.Email = "x' @y" }),
		"profile":        acme(func(a *manifest.ACMEIssuer) { a.Profile = "a b" }),
		"chain":          acme(func(a *manifest.ACMEIssuer) { a.PreferredChain = "$(x)" }),
		"serial":         &manifest.IssuedCertificate{Name: "w", Names: []string{"a.test"}, Issuer: "i", Serial: "XY", NotBefore: start, NotAfter: start.Add(1e9), LeafSHA256: hex64, SPKISHA256: hex64},
		"issued dates":   &manifest.IssuedCertificate{Name: "w", Names: []string{"a.test"}, Issuer: "i", Serial: "1", NotBefore: start, NotAfter: start, LeafSHA256: hex64, SPKISHA256: hex64},
		"issued digests": &manifest.IssuedCertificate{Name: "w", Names: []string{"a.test"}, Issuer: "i", Serial: "1", NotBefore: start, NotAfter: start.Add(1e9)},
	} {
		if _, err := doc.Encode(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	for _, doc := range []document{
		&manifest.Issuer{Name: "i", Type: "privateca", PrivateCA: &manifest.PrivateCAIssuer{Lifetime: "2160h"}},
		&manifest.Server{Name: "w"},
	} {
		if _, err := doc.Encode(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzYAML(f *testing.F) {
	for _, k := range kinds() {
		data, err := k.doc.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, k := range kinds() {
			doc, err := k.decode(data)
			if err != nil {
				continue
			}
			once, err := doc.Encode()
			if err != nil {
				t.Fatalf("%s: what was read cannot be written: %v", name, err)
			}
			again, err := k.decode(once)
			if err != nil {
				t.Fatalf("%s: what was written cannot be read: %v", name, err)
			}
			if twice, err := again.Encode(); err != nil || !bytes.Equal(once, twice) {
				t.Errorf("%s: two forms of one document", name)
			}
		}
	})
}
