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
dns_cloud_add() {
  # _readaccountconf_mutable CLOUD_Never
  use "$CLOUD_Key" "$CLOUD_Email" "$CLOUD_Token" "$CLOUD_Zone_ID" "$CLOUD_URL"
}
`

// TestCodeMendsMetadata: what the code reads counts, not what the metadata says of it.
func TestCodeMendsMetadata(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		info, code string
		want       []issuer.DNSOption
	}{
		"never mentioned": {"X_Config Configuration", "xcloud run", []issuer.DNSOption{{Name: "X_Config", Description: "Configuration", Optional: true}}},
		"another name": {
			"Y_Token API Token", `X_Token="${X_Token:-$(_readaccountconf_mutable X_Token)}"`,
			[]issuer.DNSOption{{Name: "X_Token", Description: "API Token", Secret: true}},
		},
		"left out": {"X_User User", `use "$X_User" "$X_View"; _saveaccountconf X_View "$X_View"`, []issuer.DNSOption{
			{Name: "X_User", Description: "User"}, {Name: "X_View", Description: "Read by the hook, which does not describe it.", Optional: true},
		}},
		"a secret in its place": {"X_Key Key", "use \"$X_Key\"\n  X_Token=\"${X_Token:-$(_readaccountconf_mutable X_Token)}\"", []issuer.DNSOption{
			{Name: "X_Key", Description: "Key", Optional: true, Secret: true},
			{Name: "X_Token", Description: "Read by the hook, which does not describe it.", Optional: true, Secret: true},
		}},
		"a cache": {"X_Key Key", `use "$X_Key"; have=$(_readaccountconf "X_SessionToken")`, []issuer.DNSOption{
			{Name: "X_Key", Description: "Key", Secret: true},
			{Name: "X_SessionToken", Description: "Read by the hook, which does not describe it.", Optional: true, Secret: true},
		}},
		"made at run time": {"X_Key Key", `use "$X_Key"; _readaccountconf_mutable "X_Record_$id"`, []issuer.DNSOption{{Name: "X_Key", Description: "Key", Secret: true}}},
		"in a comment":     {"X_Key Key", "use \"$X_Key\"\n # _readaccountconf X_Old", []issuer.DNSOption{{Name: "X_Key", Description: "Key", Secret: true}}},
	} {
		p := dnshook.Parse("dns_x", "dns_x_info='X\nOptions:\n "+tt.info+"\n'\n"+tt.code+"\n")
		if diff := cmp.Diff(tt.want, p.Options); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// Lexicon makes the names of its variables out of PROVIDER.
	if p := dnshook.Parse("dns_lexicon", "dns_lexicon_info='L\nOptions:\n PROVIDER Provider\n'\nuse $PROVIDER\n"); len(p.Variables()) > 0 || !strings.Contains(p.Hint, "PROVIDER") {
		t.Errorf("%+v", p)
	}
}

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
		if p.Title == "" || len(p.Variables()) > 0 && p.Site == "" && p.Docs == "" && p.Hook != "dns_czechia" { // its metadata is JSON
			t.Errorf("%+v", p)
		}
		for _, v := range p.Variables() {
			if !name.MatchString(v) || issuer.CheckVariable(v, "x") != nil {
				t.Errorf("%s: variable %q", p.Hook, v)
			}
		}
	}
	if want := []string{"dns_lexicon", "dns_mydevil"}; !slices.Equal(silent, want) {
		t.Errorf("hooks without variables: %v, want %v", silent, want)
	}
	i := slices.IndexFunc(all, func(p issuer.DNSHook) bool { return p.Hook == "dns_cf" })
	if !slices.Equal(all[i].Variables(), []string{"CF_Key", "CF_Email", "CF_Token", "CF_Account_ID", "CF_Zone_ID"}) || !all[i].Options[0].Secret {
		t.Errorf("%+v", all[i])
	}
}

// TestRealHooksCanBeUsed holds the variables of every hook of acme.sh against its code: what is demanded is mentioned
// there, and what is read there is allowed.
func TestRealHooksCanBeUsed(t *testing.T) {
	t.Parallel()
	script := os.Getenv("ACME_SH")
	if script == "" {
		t.Skip("skipped: set ACME_SH to acme.sh to read its hooks")
	}
	all, err := dnshook.List(filepath.Dir(script))
	if err != nil || len(all) < 150 {
		t.Fatalf("%d hooks, %v", len(all), err)
	}
	read := regexp.MustCompile(`_readaccountconf(_mutable)? +"?([A-Za-z]\w*)"?[ )]`)
	for _, p := range all {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(script), "dnsapi", p.Hook+".sh"))
		if err != nil {
			t.Fatal(err)
		}
		before, rest, _ := strings.Cut(string(data), p.Hook+"_info='")
		_, after, _ := strings.Cut(rest, "'\n")
		code := regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(before+after, "")
		for _, o := range slices.Concat(p.Options, p.Alternative) {
			if !o.Optional && !regexp.MustCompile(`\b`+o.Name+`\b`).MatchString(code) {
				t.Errorf("%s: %s is demanded, and its code never mentions it", p.Hook, o.Name)
			}
		}
		known := p.Variables()
		for _, match := range read.FindAllStringSubmatch(code, -1) {
			if len(known) > 0 && !slices.Contains(known, match[2]) {
				t.Errorf("%s reads %s, which is not allowed", p.Hook, match[2])
			}
		}
	}
	optional := func(hook, name string) (known, optional bool) {
		p := all[slices.IndexFunc(all, func(p issuer.DNSHook) bool { return p.Hook == hook })]
		n := slices.IndexFunc(p.Options, func(o issuer.DNSOption) bool { return o.Name == name })
		return n >= 0, n >= 0 && p.Options[n].Optional
	}
	for _, tt := range []struct {
		hook, name string
		optional   bool
	}{
		{"dns_desec", "DEDYN_TOKEN", false},
		{"dns_beget", "Beget_Username", false},
		{"dns_beget", "Beget_Password", false},
		{"dns_gcloud", "CLOUDSDK_ACTIVE_CONFIG_NAME", true},
		{"dns_myapi", "MYAPI_Token", true},
		{"dns_gandi_livedns", "GANDI_LIVEDNS_KEY", true},
		{"dns_gandi_livedns", "GANDI_LIVEDNS_TOKEN", true},
		{"dns_openstack", "OS_APPLICATION_CREDENTIAL_SECRET", true},
		{"dns_openstack", "OS_PASSWORD", true},
		{"dns_nsupdate", "NSUPDATE_OPT", true},
		{"dns_infoblox", "Infoblox_View", true},
		{"dns_infoblox", "Infoblox_Creds", false},
		{"dns_poweradmin", "POWERADMIN_URL", false},
		{"dns_czechia", "CZ_AuthorizationToken", true},
		{"dns_azure", "AZUREDNS_SUBSCRIPTIONID", false},
		{"dns_cf", "CF_Key", false},
	} {
		if known, optional := optional(tt.hook, tt.name); !known || optional != tt.optional {
			t.Errorf("%s %s: known %t, optional %t, want %t", tt.hook, tt.name, known, optional, tt.optional)
		}
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
