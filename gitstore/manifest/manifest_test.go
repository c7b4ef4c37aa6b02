package manifest_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore/manifest"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	hex64 = strings.Repeat("ab", 32)
	fpr   = strings.Repeat("AB", 20)
)

// golden compares data with testdata/name: a format must not change by accident.
func golden(t *testing.T, name string, data []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(data)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func goodManifest() *manifest.Manifest {
	return &manifest.Manifest{
		Format: 1, RepoID: "repo", Server: "web-1", ServerKeyFpr: fpr, Generation: 2, PrevManifestSHA256: hex64,
		IssuedAt: start, FreshUntil: start.Add(7 * 24 * time.Hour), KeyringVersion: 1, MainCommit: strings.Repeat("cd", 20),
		Deployments: []manifest.Deployment{{
			Certificate: "www", Names: []string{"www.example.com"}, NotBefore: start, NotAfter: start.Add(time.Hour),
			LeafSHA256: hex64, SPKISHA256: hex64, Bundle: "bundles/www.pgp", BundleSHA256: hex64, BundleSize: 5,
			Deployer: "nginx", Target: "site", StepBack: true,
		}},
	}
}

func goodKeyring() *manifest.Keyring {
	return &manifest.Keyring{Format: 1, RepoID: "repo", Version: 1, IssuedAt: start, Keys: []manifest.KeyringKey{{Fingerprint: fpr, PublicKey: "armor"}}}
}

func TestManifestGolden(t *testing.T) {
	t.Parallel()
	data, err := goodManifest().Encode()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "manifest.json", data)
	got, err := manifest.Decode(data)
	if diff := cmp.Diff(goodManifest(), got); err != nil || diff != "" {
		t.Errorf("decoded: %v %s", err, diff)
	}
}

// sharedManifest is goodManifest with a second certificate, whose bundle is shared.
func sharedManifest() *manifest.Manifest {
	m := goodManifest()
	d := m.Deployments[0]
	d.Certificate, d.Bundle, d.StepBack = "zone", "bundles/zone.pgp", false
	d.BundleKey = []byte("an OpenPGP packet")
	m.Deployments = append(m.Deployments, d)
	return m
}

func TestSharedManifestGolden(t *testing.T) {
	t.Parallel()
	data, err := sharedManifest().Encode()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "manifest-shared.json", data)
	got, err := manifest.Decode(data)
	if diff := cmp.Diff(sharedManifest(), got); err != nil || diff != "" {
		t.Errorf("decoded: %v %s", err, diff)
	}
	m := sharedManifest()
	m.Deployments[1].BundleKey = make([]byte, 2<<10)
	if _, err := m.Encode(); err == nil {
		t.Error("large key packet: no error")
	}
	for name, text := range map[string]string{"not base64": `"!"`, "unpadded": `"YQ"`, "empty": `""`, "spare bits": `"YR=="`, "a line end": `"YQ==\n"`} {
		bad := bytes.Replace(data, []byte(`"YW4gT3BlblBHUCBwYWNrZXQ="`), []byte(text), 1)
		if _, err := manifest.Decode(bad); err == nil || bytes.Equal(bad, data) {
			t.Errorf("key packet, %s: no error", name)
		}
	}
}

func TestKeyringGolden(t *testing.T) {
	t.Parallel()
	data, err := goodKeyring().Encode()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "keyring.json", data)
	got, err := manifest.DecodeKeyring(data)
	if diff := cmp.Diff(goodKeyring(), got); err != nil || diff != "" {
		t.Errorf("decoded: %v %s", err, diff)
	}
}

func TestManifestRefusesEveryFault(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(m *manifest.Manifest){
		"format":              func(m *manifest.Manifest) { m.Format = 2 },
		"repo":                func(m *manifest.Manifest) { m.RepoID = "" },
		"repo of two lines":   func(m *manifest.Manifest) { m.RepoID = "a\nb" },
		"server":              func(m *manifest.Manifest) { m.Server = "../x" },
		"fingerprint":         func(m *manifest.Manifest) { m.ServerKeyFpr = strings.ToLower(fpr) },
		"generation 0":        func(m *manifest.Manifest) { m.Generation = 0 },
		"generation 2^64":     func(m *manifest.Manifest) { m.Generation = 1<<64 - 1 },
		"no previous":         func(m *manifest.Manifest) { m.PrevManifestSHA256 = "" },
		"first with previous": func(m *manifest.Manifest) { m.Generation = 1 },
		"previous":            func(m *manifest.Manifest) { m.PrevManifestSHA256 = "xyz" },
		"fraction":            func(m *manifest.Manifest) { m.IssuedAt = start.Add(time.Millisecond) },
		"zone":                func(m *manifest.Manifest) { m.IssuedAt = start.In(time.FixedZone("x", 3600)) },
		"fresh":               func(m *manifest.Manifest) { m.FreshUntil = start.Add(-time.Second) },
		"keyring":             func(m *manifest.Manifest) { m.KeyringVersion = 0 },
		"main":                func(m *manifest.Manifest) { m.MainCommit = "HEAD" },
		"no list":             func(m *manifest.Manifest) { m.Deployments = nil },
		"twice":               func(m *manifest.Manifest) { m.Deployments = append(m.Deployments, m.Deployments[0]) },
		"certificate":         func(m *manifest.Manifest) { m.Deployments[0].Certificate = "a b" },
		"deployer":            func(m *manifest.Manifest) { m.Deployments[0].Deployer = "; rm" },
		"target":              func(m *manifest.Manifest) { m.Deployments[0].Target = "/etc/shadow" },
		"names":               func(m *manifest.Manifest) { m.Deployments[0].Names = nil },
		"dns name":            func(m *manifest.Manifest) { m.Deployments[0].Names = []string{"*"} },
		"dates":               func(m *manifest.Manifest) { m.Deployments[0].NotAfter = start },
		"leaf":                func(m *manifest.Manifest) { m.Deployments[0].LeafSHA256 = "" },
		"bundle path":         func(m *manifest.Manifest) { m.Deployments[0].Bundle = "bundles/other.pgp" },
		"bundle size":         func(m *manifest.Manifest) { m.Deployments[0].BundleSize = 0 },
		"key elsewhere":       func(m *manifest.Manifest) { m.Deployments[0].Key = "hub" },
	} {
		m := goodManifest()
		change(m)
		if _, err := m.Encode(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	large := goodManifest()
	for i := range 9000 {
		d := large.Deployments[0]
		d.Target = fmt.Sprintf("zz-%05d", i)
		large.Deployments = append(large.Deployments, d)
	}
	if _, err := large.Encode(); err == nil {
		t.Error("a manifest that cannot be read was written")
	}
	for name, change := range map[string]func(k *manifest.Keyring){
		"format":      func(k *manifest.Keyring) { k.Format = 0 },
		"repo":        func(k *manifest.Keyring) { k.RepoID = "" },
		"version":     func(k *manifest.Keyring) { k.Version = 0 },
		"time":        func(k *manifest.Keyring) { k.IssuedAt = time.Time{} },
		"no keys":     func(k *manifest.Keyring) { k.Keys = nil },
		"fingerprint": func(k *manifest.Keyring) { k.Keys[0].Fingerprint = "x" },
		"large":       func(k *manifest.Keyring) { k.Keys[0].PublicKey = strings.Repeat("x", 300<<10) },
		"no key":      func(k *manifest.Keyring) { k.Keys[0].PublicKey = "" },
		"twice":       func(k *manifest.Keyring) { k.Keys = append(k.Keys, k.Keys[0]) },
	} {
		k := goodKeyring()
		change(k)
		if _, err := k.Encode(); err == nil {
			t.Errorf("keyring %s: no error", name)
		}
	}
}

func TestOnlyTheCanonicalFormIsRead(t *testing.T) {
	t.Parallel()
	data, err := goodManifest().Encode()
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for name, other := range map[string]string{
		"space":         strings.Replace(text, ":", ": ", 1),
		"other case":    strings.Replace(text, `"server"`, `"Server"`, 1),
		"twice":         strings.Replace(text, `{"format":1`, `{"format":1,"format":1`, 1),
		"unknown":       strings.Replace(text, `{"format":1`, `{"format":1,"more":1`, 1),
		"behind":        text + "{}",
		"no newline":    strings.TrimSpace(text),
		"escaped":       strings.Replace(text, "web-1", `web\u002d1`, 1),
		"null list":     strings.Replace(text, `"names":["www.example.com"]`, `"names":null`, 1),
		"other number":  strings.Replace(text, `"generation":2`, `"generation":2.0`, 1),
		"cut off":       text[:len(text)/2],
		"empty":         "",
		"too large":     text + strings.Repeat(" ", 3<<20),
		"false flag":    strings.Replace(text, `"step_back":true`, `"step_back":false`, 1),
		"other newline": strings.Replace(text, "}\n", "}\r\n", 1),
	} {
		if m, err := manifest.Decode([]byte(other)); err == nil || m != nil {
			t.Errorf("%s: no error", name)
		}
	}
	ring, err := goodKeyring().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]string{
		"empty": "{}", "space": string(ring) + " ", "twice": strings.Replace(string(ring), `{"format":1`, `{"format":1,"format":1`, 1),
		"other case": strings.Replace(string(ring), "keys", "Keys", 1), "large": strings.Repeat(" ", 300<<10) + string(ring),
	} {
		if k, err := manifest.DecodeKeyring([]byte(other)); err == nil || k != nil {
			t.Errorf("keyring, %s: %v", name, err)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{
		"a": true, "www": true, "web-1": true, "example.com": true, "a_b.c-d": true, strings.Repeat("a", 100): true,
		"": false, "../x": false, "a/b": false, "a..b": false, ".a": false, "a.": false, "-a": false, "A": false, "a b": false,
		"a\nb": false, "a\x00": false, "ä": false, "x.lock": false, strings.Repeat("a", 300): false,
	} {
		if err := manifest.ValidName(name); (err == nil) != good {
			t.Errorf("name %.20q: %v", name, err)
		} else if err != nil && len(name) > 2 && strings.Contains(err.Error(), name) {
			t.Errorf("name %.20q: the error repeats it", name)
		}
	}
	for name, good := range map[string]bool{
		"example.com": true, "*.example.com": true, "localhost": true, "xn--bcher-kva.example": true, "a-b.c1": true,
		"": false, "*": false, "*.com": false, "a.*.b": false, "*a.b.c": false, "a..b": false, "-a.b": false, "a-.b": false,
		"A.b": false, "a_b.c": false, "1.2.3.4": false, "a.b\n": false, strings.Repeat("a", 64) + ".b": false,
		strings.Repeat("abcdefgh.", 40) + "com": false, "bücher.example": false,
	} {
		if err := manifest.ValidDNSName(name); (err == nil) != good {
			t.Errorf("DNS name %.20q: %v", name, err)
		}
	}
	if manifest.IssuedDir("www") != "issued/7c/www" || manifest.BundlePath("www") != "bundles/www.pgp" ||
		manifest.ServerBranch("web-1") != "refs/heads/servers/web-1" || manifest.CertificatePath("www") != "certificates/www.yaml" ||
		manifest.ServerPath("w") != "servers/w.yaml" || manifest.IssuerPath("i") != "issuers/i.yaml" {
		t.Errorf("a path changed: %s", manifest.IssuedDir("www"))
	}
}

func TestSelectors(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"role": "edge", "region": "eu", "empty": ""}
	for text, matches := range map[string]bool{
		"role=edge": true, "role==edge": true, "role!=edge": false, "role in (edge,core)": true, "role in(core)": false,
		"role notin (core)": true, "region in (us, eu),role=edge": true, "role": true, "!role": false, "absent": false,
		"!absent": true, "absent!=x": true, "role=edge,region=us": false, "absent notin (a)": true,
	} {
		s, err := manifest.ParseSelector(text)
		if err != nil || s.Matches(labels) != matches {
			t.Errorf("%q: matches %t, %v", text, s.Matches(labels), err)
		}
	}
	for _, text := range []string{"", ",", "a=b,", "=b", "a in b", "a in (", "a in ()", "a b", "a=b c", "a=ü", strings.Repeat("a", 2000)} {
		if _, err := manifest.ParseSelector(text); err == nil {
			t.Errorf("%.20q: no error", text)
		}
	}
	if (manifest.Selector{}).Matches(labels) {
		t.Error("the zero selector matches")
	}
}

func FuzzDecode(f *testing.F) {
	data, err := goodManifest().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := manifest.Decode(data)
		if err != nil {
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("another form was read: %v", err)
		}
	})
}

func FuzzDecodeKeyring(f *testing.F) {
	data, err := goodKeyring().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := manifest.DecodeKeyring(data)
		if err != nil {
			return
		}
		if again, err := k.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("another form was read: %v", err)
		}
	})
}

func FuzzParseSelector(f *testing.F) {
	f.Add("role=edge,region in (eu,us),!old")
	f.Fuzz(func(_ *testing.T, text string) {
		if s, err := manifest.ParseSelector(text); err == nil {
			s.Matches(map[string]string{"role": "edge"})
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	m := goodManifest()
	for b.Loop() {
		if _, err := m.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	data, err := goodManifest().Encode()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := manifest.Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
