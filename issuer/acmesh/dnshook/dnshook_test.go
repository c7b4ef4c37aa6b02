package dnshook_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh/dnshook"
)

const cloud = `#!/usr/bin/env sh
# shellcheck disable=SC2034
dns_cloud_info='Cloud DNS
 A cloud that answers.
Site: Cloud.example
Docs: docs.example/wiki#dns_cloud
Options:
 CLOUD_Key API Key
 CLOUD_Email Your account email
OptionsAlt:
 CLOUD_Token API Token
 CLOUD_Zone_ID Zone ID. Optional.
 CLOUD_URL API endpoint. Default: "https://api.cloud.example".
Issues: github.com/x
Author: Somebody
'
CLOUD_Api="x"
dns_cloud_add() { :; }
`

func TestParse(t *testing.T) {
	t.Parallel()
	want := issuer.DNSHook{
		Hook: "dns_cloud", Title: "Cloud DNS", Hint: "A cloud that answers.", Site: "https://Cloud.example", Docs: "https://docs.example/wiki#dns_cloud",
		Options: []issuer.DNSOption{
			{Name: "CLOUD_Key", Description: "API Key", Secret: true},
			{Name: "CLOUD_Email", Description: "Your account email"},
		},
		Alternative: []issuer.DNSOption{
			{Name: "CLOUD_Token", Description: "API Token", Secret: true},
			{Name: "CLOUD_Zone_ID", Description: "Zone ID. Optional.", Optional: true},
			{Name: "CLOUD_URL", Description: `API endpoint. Default: "https://api.cloud.example".`, Default: "https://api.cloud.example", Optional: true},
		},
	}
	if diff := cmp.Diff(want, dnshook.Parse("dns_cloud", cloud)); diff != "" {
		t.Error(diff)
	}
	for name, text := range map[string]string{"nothing": "", "not ended": "dns_x_info='X", "JSON": "dns_x_info='[\n {\"name\":\"a\"}\n'\n"} {
		if p := dnshook.Parse("dns_x", text); p.Title != "x" || len(p.Variables()) != 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
	evil := dnshook.Parse("dns_x", "dns_x_info='X\x1b[31m\nSite: javascript:alert(1)\nDocs: a\"><script>\n'\n")
	if strings.Contains(evil.Title, "\x1b") || evil.Site != "" || evil.Docs != "" {
		t.Errorf("%+v", evil)
	}
}

func TestReadAndList(t *testing.T) {
	t.Parallel()
	own, copied := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "dnsapi"), 0o700), os.WriteFile(filepath.Join(dir, "dnsapi", name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(own, "dns_cloud.sh", cloud)
	write(own, "README.md", "x")
	write(copied, "dns_cloud.sh", "dns_cloud_info='Another\n'\n")
	write(copied, "dns_other.sh", "dns_other_info='Other\n'\n")
	all, err := dnshook.List(own, "", copied, filepath.Join(own, "absent"))
	if err != nil || len(all) != 2 || all[0].Title != "Cloud DNS" || all[1].Hook != "dns_other" {
		t.Errorf("%+v, %v", all, err)
	}
	for _, name := range []string{"dns_absent", "../dns_cloud", "dns_cloud.sh", "", "dns_Cloud"} {
		if _, err := dnshook.Read(name, own); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := os.Truncate(filepath.Join(own, "dnsapi", "dns_cloud.sh"), 2<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := dnshook.Read("dns_cloud", own); err == nil {
		t.Error("read a hook of 2 MiB")
	}
}

// TestRealHooks holds the parser against every hook of acme.sh.
func TestRealHooks(t *testing.T) {
	t.Parallel()
	script := os.Getenv("ACME_SH")
	if script == "" {
		t.Skip("skipped: set ACME_SH to acme.sh to read its hooks")
	}
	all, err := dnshook.List(filepath.Dir(script))
	if err != nil || len(all) < 150 {
		t.Fatalf("%d hooks, %v", len(all), err)
	}
	var silent []string
	name := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)
	for _, p := range all {
		if len(p.Variables()) == 0 {
			silent = append(silent, p.Hook)
		}
		if p.Title == "" || len(p.Variables()) > 0 && p.Site == "" && p.Docs == "" {
			t.Errorf("%+v", p)
		}
		for _, v := range p.Variables() {
			if !name.MatchString(v) || issuer.CheckVariable(v, "x") != nil {
				t.Errorf("%s: variable %q", p.Hook, v)
			}
		}
	}
	if len(silent) > 8 {
		t.Errorf("%d hooks without variables: %v", len(silent), silent)
	}
	i := slices.IndexFunc(all, func(p issuer.DNSHook) bool { return p.Hook == "dns_cf" })
	if !slices.Equal(all[i].Variables(), []string{"CF_Key", "CF_Email", "CF_Token", "CF_Account_ID", "CF_Zone_ID"}) || !all[i].Options[0].Secret {
		t.Errorf("%+v", all[i])
	}
}

func FuzzParse(f *testing.F) {
	f.Add(cloud)
	f.Fuzz(func(t *testing.T, text string) {
		p := dnshook.Parse("dns_cloud", text)
		if strings.ContainsAny(p.Title+p.Site+p.Docs, "\n\x00") || len(p.Title) > 500 {
			t.Errorf("%+v", p)
		}
	})
}
