package agent_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/gitstore/bundle"
)

const password = "changeit"

func issue(tb testing.TB) *bundle.Bundle {
	tb.Helper()
	return deployertest.NewCA(tb, time.Now()).Issue(tb, deployertest.Name)
}

// TestOutputs: each file of a target holds what its name says, keys first.
func TestOutputs(t *testing.T) {
	t.Parallel()
	b := issue(t)
	key, err := b.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	leaf, chain := string(b.LeafPEM()), string(b.ChainPEM())
	tests := []struct {
		name   string
		target agent.Target
		want   []string // path, contents, …; secret ones have a path that begins with /secret
	}{
		{"pair", agent.Target{Certificate: "/c", Key: "/secret"}, []string{"/secret", string(key), "/c", leaf + chain}},
		{
			"chain apart",
			agent.Target{Certificate: "/c", Key: "/secret", Chain: "/chain"},
			[]string{"/secret", string(key), "/c", leaf, "/chain", chain},
		},
		{"combined", agent.Target{Combined: "/secret"}, []string{"/secret", leaf + chain + string(key)}},
		{
			"pair and combined",
			agent.Target{Combined: "/secret2", Certificate: "/c", Key: "/secret1"},
			[]string{"/secret1", string(key), "/secret2", leaf + chain + string(key), "/c", leaf + chain},
		},
	}
	for _, tt := range tests {
		files, err := agent.Outputs(tt.target, b)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range files {
			got = append(got, f.Path, string(f.Data))
			if f.Secret != strings.HasPrefix(f.Path, "/secret") || f.Open != nil {
				t.Errorf("%s: %s: secret %v", tt.name, f.Path, f.Secret)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
	for name, target := range map[string]agent.Target{
		"nothing":         {Name: "web"},
		"unread password": {Keystore: agent.Keystore{Path: "/k", Format: agent.FormatJKS, Alias: "x"}},
		"unknown format":  {Keystore: agent.Keystore{Path: "/k", Format: "bcfks", Password: password}},
	} {
		if _, err := agent.Outputs(target, b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := agent.Outputs(tests[0].target, &bundle.Bundle{Leaf: b.Leaf}); err == nil {
		t.Error("a bundle without a key is accepted")
	}
}

func stores(path string) []agent.Keystore {
	return []agent.Keystore{
		{Path: path, Format: agent.FormatPKCS12, Password: password},
		{Path: path, Format: agent.FormatPKCS12, Password: password, Legacy: true},
		{Path: path, Format: agent.FormatJKS, Password: password, Alias: "tomcat"},
	}
}

func encode(tb testing.TB, k agent.Keystore, b *bundle.Bundle) agent.File {
	tb.Helper()
	files, err := agent.Outputs(agent.Target{Keystore: k}, b)
	if err != nil || len(files) != 1 || !files[0].Secret {
		tb.Fatalf("%d files, %v", len(files), err)
	}
	return files[0]
}

// TestKeystore: what is encoded can be opened again, by us and by Java, and says the same though the bytes differ.
func TestKeystore(t *testing.T) {
	t.Parallel()
	b := issue(t)
	for _, k := range stores("/srv/store") {
		one, two := encode(t, k, b), encode(t, k, b)
		if bytes.Equal(one.Data, two.Data) {
			t.Errorf("%+v: encoded twice to the same bytes: no salt", k)
		}
		back, err := one.Open(two.Data)
		if err != nil {
			t.Errorf("%+v: %v", k, err)
			continue
		}
		if !bytes.Equal(back.FullChainPEM(), b.FullChainPEM()) {
			t.Errorf("%+v: another chain comes back", k)
		}
		wrong := k
		wrong.Password = "guess me"
		if _, err := wrong.Open(one.Data); err == nil {
			t.Errorf("%+v: opened with a wrong password", k)
		}
		foreign := encode(t, k, &bundle.Bundle{Leaf: b.Leaf, Chain: b.Chain, Key: issue(t).Key})
		if _, err := k.Open(foreign.Data); err == nil {
			t.Errorf("%+v: a key that is not the certificate's is accepted", k)
		}
	}
	modern, legacy := stores("/x")[0], stores("/x")[1]
	if _, err := legacy.Open(encode(t, modern, b).Data); err == nil {
		t.Error("a modern store passes where an old one is wanted: it would never be replaced")
	}
	if _, err := modern.Open(encode(t, legacy, b).Data); err != nil {
		t.Error(err)
	}
}

// TestJava reads each key store with Java's own tool.
func TestJava(t *testing.T) {
	t.Parallel()
	keytool := deployertest.Program(t, "keytool")
	b := issue(t)
	for i, k := range stores(filepath.Join(t.TempDir(), "store")) {
		if err := os.WriteFile(k.Path, encode(t, k, b).Data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(keytool, "-list", "-v", "-keystore", k.Path, "-storepass", password).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "PrivateKeyEntry") || !strings.Contains(string(out), "Certificate chain length: 2") {
			t.Errorf("%d: %v: %s", i, err, out)
		}
		if k.Alias != "" && !strings.Contains(string(out), "Alias name: "+k.Alias) {
			t.Errorf("the entry has another name: %s", out)
		}
	}
	made := agent.Keystore{Path: filepath.Join(t.TempDir(), "made"), Format: agent.FormatPKCS12, Password: password}
	if out, err := exec.Command(keytool, "-genkeypair", "-keyalg", "EC", "-alias", "x", "-dname", "CN=x", "-keystore", made.Path, "-storetype", "PKCS12", "-storepass", password).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(made.Path)
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := made.Open(data); err != nil || opened.Leaf.Subject.CommonName != "x" {
		t.Errorf("a store that Java made: %v", err)
	}
}

// TestPasswordStaysSecret in everything that prints a target.
func TestPasswordStaysSecret(t *testing.T) {
	t.Parallel()
	target := agent.Target{Keystore: agent.Keystore{Path: "/k", Password: password}}
	encoded, err := json.Marshal(map[string]agent.Password{"password": target.Keystore.Password})
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{fmt.Sprintf("%v %+v %#v %s %q", target, target, target, target.Keystore.Password, target.Keystore.Password), string(encoded)} {
		if strings.Contains(said, password) {
			t.Errorf("the password is said: %s", said)
		}
	}
}

// TestHostileKeystore: a store that asks for memory or work without end is refused at once.
func TestHostileKeystore(t *testing.T) {
	t.Parallel()
	jks := stores("/x")[2]
	p12 := stores("/x")[0]
	tests := []struct {
		name  string
		store agent.Keystore
		data  string
		want  string
	}{
		{"empty jks", jks, "", "damaged"},
		{"huge key", jks, "\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01x12345678\xff\xff\xff\xff", "damaged"},
		{"huge chain", jks, "\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01x12345678\x00\x00\x00\x01k\xff\xff\xff\xff", "damaged"},
		{"huge number of entries", jks, "\xfe\xed\xfe\xed\x00\x00\x00\x02\xff\xff\xff\xff", "damaged"},
		{"huge file", jks, strings.Repeat("x", bundle.MaxSize+1), "larger than"},
		// SEQUENCE { OCTET STRING "s", INTEGER 2^31-1 } inside an OCTET STRING
		{"rounds without end", p12, "\x30\x0d\x04\x0b\x30\x09\x04\x01s\x02\x04\x7f\xff\xff\xff", "rounds of key derivation"},
		{"rounds beyond any number", p12, "\x30\x0e\x04\x01s\x02\x09\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "rounds of key derivation"},
		{"no der", p12, "hello", "open key store"},
	}
	for _, tt := range tests {
		if _, err := tt.store.Open([]byte(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// FuzzOpen looks for a file that opening does not survive.
func FuzzOpen(f *testing.F) {
	b := issue(f)
	for i, k := range stores("/x") {
		f.Add(i, encode(f, k, b).Data)
	}
	f.Fuzz(func(t *testing.T, i int, data []byte) {
		k := stores("/x")[uint(i)%3]
		if b, err := k.Open(data); err == nil && (b.Leaf == nil || b.Key == nil) {
			t.Error("opened without leaf or key")
		}
	})
}
