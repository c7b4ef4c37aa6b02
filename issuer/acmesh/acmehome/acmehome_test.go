package acmehome_test

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/certferry/certferry/issuer/acmesh/acmehome"
)

func TestParse(t *testing.T) {
	t.Parallel()
	values, err := acmehome.Parse("#LOG_FILE='x'\n\nLe_Domain='a.example'\nSAVED_CF_Token='it$(rm)`s\"'\nLe_PreHook='__ACME_BASE64__START_ZWNobyBoaQ==__ACME_BASE64__END_'\nUSER_PATH=\"/bin\"\nBARE=1\n")
	want := map[string]string{"Le_Domain": "a.example", "SAVED_CF_Token": "it$(rm)`s\"", "Le_PreHook": "echo hi", "USER_PATH": "/bin", "BARE": "1"}
	if err != nil || !maps.Equal(values, want) {
		t.Errorf("%v %v", values, err)
	}
	for _, text := range []string{"rm -rf /\n", "A B='c'\n", "X='__ACME_BASE64__START_!__ACME_BASE64__END_'\n", "X='a\x00b'\n"} {
		if _, err := acmehome.Parse(text); err == nil || strings.Contains(err.Error(), "rf") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("Le_Domain='a'\nSAVED_X='__ACME_BASE64__START_eA==__ACME_BASE64__END_'\n")
	f.Fuzz(func(t *testing.T, text string) {
		values, err := acmehome.Parse(text)
		for name, value := range values {
			if err != nil || strings.ContainsRune(value, 0) || strings.ContainsAny(name, " '=") {
				t.Errorf("%q: %q, %v", name, value, err)
			}
		}
	})
}

// write makes a folder from paths and texts.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRead(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"account.conf":                    "ACCOUNT_EMAIL='me@example.com'\nSAVED_CF_Token='secret'\n",
		"ca/acme.example/dir/account.key": "key", "ca/acme.example/dir/ca.conf": "ACCOUNT_URL='https://acme.example:14000/acct/1'\nCA_EMAIL='ca@example.com'\n",
		"ca/other.example/v2/account.key":        "key2",
		"www.example_ecc/www.example.conf":       "Le_Domain='www.example'\nLe_Alt='a.example,*.b.example'\nLe_Webroot='/var/www,dns_cf'\nLe_ChallengeAlias='no,=x.example,'\nLe_API='https://acme.example:14000/dir'\n",
		"www.example_ecc/fullchain.cer":          "chain",
		"www.example_ecc/www.example.key":        "leaf key",
		"alone.example/alone.example.conf":       "Le_Domain='alone.example'\nLe_Alt='no'\nLe_Webroot='no'\n",
		"alone.example/fullchain.cer":            "chain",
		"alone.example/alone.example.key":        "leaf key",
		"never.example/never.example.conf":       "Le_Domain='never.example'\n",
		"damaged.example/damaged.example.conf":   "secret text\n",
		"mistaken.example/mistaken.example.conf": "Le_Domain='other.example'\n",
		"dnsapi/dns_cf.sh":                       "",
	})
	home, err := acmehome.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []acmehome.Certificate{
		{Folder: "alone.example", Names: []string{"alone.example"}, Places: []string{"no"}, Aliases: []string{""}, Chain: []byte("chain"), Key: []byte("leaf key")},
		{
			Folder: "www.example_ecc", Names: []string{"www.example", "a.example", "*.b.example"}, Directory: "https://acme.example:14000/dir",
			Places: []string{"/var/www", "dns_cf", "dns_cf"}, Aliases: []string{"", "=x.example", "=x.example"}, Chain: []byte("chain"), Key: []byte("leaf key"),
		},
	}
	if !reflect.DeepEqual(home.Certificates, want) {
		t.Errorf("%+v", home.Certificates)
	}
	if home.Saved["CF_Token"] != "secret" || len(home.Left) != 3 || slices.ContainsFunc(home.Left, func(s string) bool { return strings.Contains(s, "secret") }) {
		t.Errorf("%+v", home.Left)
	}
	accounts := []acmehome.Account{
		{Directory: "https://acme.example:14000/dir", URL: "https://acme.example:14000/acct/1", Email: "ca@example.com", Key: []byte("key")},
		{Directory: "https://other.example/v2", Email: "me@example.com", Key: []byte("key2")},
	}
	if !reflect.DeepEqual(home.Accounts, accounts) {
		t.Errorf("%+v", home.Accounts)
	}
	if _, err := acmehome.Read(t.TempDir()); err == nil {
		t.Error("any folder is taken for one of acme.sh")
	}
}
