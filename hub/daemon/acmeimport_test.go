package daemon

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
	"github.com/certferry/certferry/issuer/privateca"
)

// issuedPEM is what a private CA issues for a name: the chain and the key.
func issuedPEM(t *testing.T, dir, name string) (chain, key string) {
	t.Helper()
	if err := privateca.Init(dir, "Other", time.Now()); err != nil {
		t.Fatal(err)
	}
	ca, err := privateca.New(privateca.Config{Dir: dir, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	req, signer := issuertest.NewRequest(t, bundle.ECDSAP256, name)
	got, err := ca.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, c := range got.Chain {
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// fleetOf is what main says, read while no hub runs.
func fleetOf(t *testing.T, cfg Config) *gitstore.Snapshot {
	t.Helper()
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	k, err := loadKeys(&cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store, err := openStore(&cfg, k, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	snapshot, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

func TestImportACME(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	cfg.ACMEDirectories = []string{"https://acme-v02.api.letsencrypt.org/directory", "https://ca.example:14000/dir"}
	hooks := filepath.Join(t.TempDir(), "lib")
	cfg.ACMEScript, cfg.ACMEUnpinned, cfg.ACMEUser = filepath.Join(hooks, "acme.sh"), true, "root"
	chain, key := issuedPEM(t, t.TempDir(), "www.example.com")
	home := t.TempDir()
	const canary = "canary-of-the-import"
	files := map[string]string{
		filepath.Join(hooks, "acme.sh"):              "#!/bin/sh\nVER=9\n",
		filepath.Join(hooks, "dnsapi", "dns_a.sh"):   "dns_a_info='A\nSite: a.example\nDocs: a.example\nOptions:\n A_Token Token\n'\n",
		filepath.Join(hooks, "dnsapi", "dns_two.sh"): "dns_two_info='Two\nSite: b.example\nDocs: b.example\nOptions:\n B_Token Token\n'\n",
		"account.conf":                             "ACCOUNT_EMAIL='me@example.com'\nSAVED_A_Token='" + canary + "'\n",
		"ca/ca.example/dir/account.key":            key,
		"ca/ca.example/dir/ca.conf":                "ACCOUNT_URL='https://ca.example:14000/acct/7'\n",
		"ca/unknown.example/account.key":           key,
		"www.example.com_ecc/www.example.com.conf": "Le_Domain='www.example.com'\nLe_Alt='no'\nLe_Webroot='dns_a'\nLe_API='https://ca.example:14000/dir'\n",
		"www.example.com_ecc/fullchain.cer":        chain, "www.example.com_ecc/www.example.com.key": key,
		"www.example.com/www.example.com.conf": "Le_Domain='www.example.com'\nLe_Alt='*.example.com'\nLe_Webroot='/var/www,dns_two'\nLe_API='https://acme-v02.api.letsencrypt.org/directory'\n",
		"www.example.com/fullchain.cer":        chain, "www.example.com/www.example.com.key": key,
		"apache.example/apache.example.conf": "Le_Domain='apache.example'\nLe_Alt='no'\nLe_Webroot='apache'\nLe_API='https://ca.example:14000/dir'\n",
		"apache.example/fullchain.cer":       chain, "apache.example/apache.example.key": key,
		"other.example/other.example.conf": "Le_Domain='other.example'\nLe_Alt='no'\nLe_Webroot='no'\nLe_API='https://not-allowed.example/dir'\n",
		"other.example/fullchain.cer":      chain, "other.example/other.example.key": key,
	}
	for name, text := range files {
		if !filepath.IsAbs(name) {
			name = filepath.Join(home, name)
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		overwrite(t, name, text)
	}

	before := fleetOf(t, cfg).Commit
	dry, err := ImportACME(t.Context(), cfg, time.Now, home, true)
	if err != nil {
		t.Fatal(err)
	}
	if fleetOf(t, cfg).Commit != before {
		t.Error("a dry run changed something")
	}
	got, err := ImportACME(t.Context(), cfg, time.Now, home, false)
	if err != nil {
		t.Fatal(err)
	}
	want := ACMEImport{
		Accounts: []string{"https://ca.example:14000/dir"}, Issuers: []string{"letsencrypt", "acme"},
		Credentials: []string{"dns-a"}, Certificates: []string{"www.example.com-rsa", "www.example.com"}, Left: got.Left,
	}
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(dry, got) {
		t.Errorf("%+v\ndry run: %+v", got, dry)
	}
	left := strings.Join(got.Left, "\n")
	for _, part := range []string{"account at https://unknown.example", "apache.example is proven in a way", "not-allowed.example", "credential dns-two: account.conf saves nothing"} {
		if !strings.Contains(left, part) {
			t.Errorf("%q is not in\n%s", part, left)
		}
	}
	if len(got.Left) != 4 || strings.Contains(left, canary) {
		t.Error(left)
	}
	after := fleetOf(t, cfg)
	wish, issued := after.Certificates["www.example.com-rsa"], after.Issued["www.example.com-rsa"]
	if wish == nil || issued == nil || wish.Issuer != "letsencrypt" || wish.Challenge.Webroot != "/var/www" ||
		len(wish.Challenges) != 1 || wish.Challenges[0].Credential != "dns-two" || wish.Challenges[0].Names[0] != "*.example.com" {
		t.Errorf("%+v %+v", wish, issued)
	}
	dryAgain, err := ImportACME(t.Context(), cfg, time.Now, home, true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ImportACME(t.Context(), cfg, time.Now, home, false)
	if !reflect.DeepEqual(dryAgain, again) {
		t.Errorf("a second run: %+v\ndry: %+v", again, dryAgain)
	}
	if err != nil || len(again.Certificates)+len(again.Accounts)+len(again.Issuers) > 0 || len(again.Left) < 6 {
		t.Errorf("a second run: %+v %v", again, err)
	}
	report, err := VerifyStore(t.Context(), cfg, time.Now)
	if err != nil || len(report.Faults) > 0 {
		t.Errorf("%+v %v", report, err)
	}
	db, err := database.Open(t.Context(), cfg.paths().database(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if c, err := db.Credential(t.Context(), "dns-a"); err != nil || bytes.Contains(c.Sealed, []byte(canary)) {
		t.Errorf("%v %v", c.Name, err)
	}
}

// TestImportTellsCommands: what acme.sh ran for a certificate is run by nobody from now on, and somebody must know.
func TestImportTellsCommands(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	cfg.ACMEDirectories = []string{"https://ca.example:14000/dir"}
	home := t.TempDir()
	overwrite(t, filepath.Join(home, "account.conf"), "")
	chain, key := issuedPEM(t, t.TempDir(), "www.example.com")
	folder := filepath.Join(home, "www.example.com_ecc")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := "Le_Domain='www.example.com'\nLe_Alt='no'\nLe_Webroot='stateless'\nLe_API='https://ca.example:14000/dir'\n"
	for _, name := range []string{"Le_ReloadCmd", "Le_PreHook", "Le_PostHook", "Le_RenewHook", "Le_DeployHook"} {
		conf += name + "='run canary-of-a-command'\n"
	}
	overwrite(t, filepath.Join(folder, "www.example.com.conf"), conf)
	overwrite(t, filepath.Join(folder, "fullchain.cer"), chain)
	overwrite(t, filepath.Join(folder, "www.example.com.key"), key)
	for _, dry := range []bool{true, false} {
		got, err := ImportACME(t.Context(), cfg, time.Now, home, dry)
		if err != nil || len(got.Certificates) != 1 || len(got.Left) != 5 {
			t.Fatalf("%+v %v", got, err)
		}
		left := strings.Join(got.Left, "\n")
		for _, part := range []string{
			"the reload command of certificate www.example.com_ecc (Le_ReloadCmd in www.example.com.conf): name the files, the software and its reload in the policy of the agent",
			"the deploy hook of", "(--pre-hook) of", "(--post-hook) of", "(--renew-hook) of",
		} {
			if !strings.Contains(left, part) {
				t.Errorf("%q is not in\n%s", part, left)
			}
		}
		if strings.Contains(left, "canary") {
			t.Error(left)
		}
	}
}

// TestImportAfterACertificateThatIsLeft: the issuer that it would have brought comes with the next one.
func TestImportAfterACertificateThatIsLeft(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	cfg.ACMEDirectories = []string{"https://ca.example:14000/dir"}
	home := t.TempDir()
	overwrite(t, filepath.Join(home, "account.conf"), "")
	for name, extra := range map[string]string{"a.example.com": "Le_Preferred_Chain='" + strings.Repeat("x", 5000) + "'\n", "b.example.com": ""} {
		chain, key := issuedPEM(t, t.TempDir(), name)
		folder := filepath.Join(home, name+"_ecc")
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		overwrite(t, filepath.Join(folder, name+".conf"), "Le_Domain='"+name+"'\nLe_Alt='no'\nLe_Webroot='stateless'\nLe_API='https://ca.example:14000/dir'\n"+extra)
		overwrite(t, filepath.Join(folder, "fullchain.cer"), chain)
		overwrite(t, filepath.Join(folder, name+".key"), key)
	}
	got, err := ImportACME(t.Context(), cfg, time.Now, home, false)
	if err != nil || len(got.Left) != 1 || len(got.Certificates) != 1 || len(got.Issuers) != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	main := fleetOf(t, cfg)
	if wish := main.Certificates["b.example.com"]; wish == nil || main.Issuers[wish.Issuer] == nil {
		t.Errorf("%+v, issuers %v", wish, main.Issuers)
	}
}

// TestImportOfARealHome takes over what the real acme.sh left behind, account included.
func TestImportOfARealHome(t *testing.T) {
	t.Parallel()
	script := os.Getenv("ACME_SH")
	if script == "" {
		t.Skip("skipped: ACME_SH is not set to the real acme.sh")
	}
	dir := t.TempDir()
	pebble, err := issuertest.StartPebble(t.Context(), issuertest.PebbleConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pebble.Close() })
	root, home := filepath.Join(dir, "root"), filepath.Join(dir, "home")
	site := &http.Server{Addr: "127.0.0.1:" + strconv.Itoa(pebble.HTTPPort), Handler: http.FileServer(http.Dir(root)), ReadHeaderTimeout: time.Second}
	go func() { _ = site.ListenAndServe() }()
	t.Cleanup(func() { _ = site.Close() })
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(t.Context(), "sh", script, "--issue", "--home", home, "--server", pebble.Directory, "--ca-bundle", pebble.CABundle,
		"-m", "me@example.com", "-d", "import.test", "-d", "also.import.test", "--webroot", root, "--keylength", "ec-256")
	run.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cfg, _ := initialised(t)
	cfg.ACMEUser = "root"
	cfg.ACMEDirectories, cfg.ACMEScript, cfg.ACMEUnpinned, cfg.ACMECABundle = []string{pebble.Directory}, script, true, pebble.CABundle
	got, err := ImportACME(t.Context(), cfg, time.Now, home, false)
	if err != nil || len(got.Left) > 0 || len(got.Accounts) != 1 || len(got.Issuers) != 1 || len(got.Certificates) != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	driver, err := newIssuers(&cfg, time.Now, discard).driver(fleetOf(t, cfg).Issuers["acme"])
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(filepath.Join(home, "ca", "localhost", "dir", "ca.conf"))
	if err != nil {
		t.Fatal(err)
	}
	holder, ok := driver.(issuer.AccountHolder)
	if !ok {
		t.Fatal("the driver has no account")
	}
	account, err := holder.Account(t.Context())
	if err != nil || !strings.Contains(string(conf), "'"+account.URL+"'") {
		t.Errorf("the hub is %s at the CA: %v\n%s", account.URL, err, conf)
	}
}
