package acmesh_test

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/issuertest"
)

// TestHostileTokens: acme.sh puts the token of a challenge into a command of socat and into a file name; a CA may not
// use that.
func TestHostileTokens(t *testing.T) {
	t.Parallel()
	if os.Getenv("ACME_SH") == "" {
		t.Skip("skipped: ACME_SH does not name the real acme.sh")
	}
	for name, token := range map[string]string{
		"a command": "x';touch$IFS%s;'", "the folder": ".x", "another folder": "../../../../../../..%s", "white space": "a b", "nothing": "",
	} {
		for _, method := range []string{"webroot", "standalone"} {
			t.Run(name+" by "+method, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				marker := filepath.Join(dir, "marker")
				if strings.Contains(token, "%s") {
					token = fmt.Sprintf(token, marker)
				}
				w := newWorld(t, issuertest.PebbleConfig{Wrap: issuertest.Inject(issuertest.Fault{
					At: issuertest.AtAuthz, Act: issuertest.Rewrite(func(body []byte) []byte { return withToken(body, token) }),
				})})
				foreign := filepath.Join(dir, ".well-known", "acme-challenge", "of-another-order")
				if err := errors.Join(os.MkdirAll(filepath.Dir(foreign), 0o700), os.WriteFile(foreign, nil, 0o600)); err != nil {
					t.Fatal(err)
				}
				req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "token.example.test")
				req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: method}
				if method == "webroot" {
					req.Challenge.Webroot = dir
				}
				_, err := w.issuer.Issue(t.Context(), req)
				if got := classOf(t, err); got != issuer.Permanent || !strings.Contains(err.Error(), "do not use this CA") {
					t.Errorf("class %s (%v)", got, err)
				}
				if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
					t.Error("the token was run, or written, as the CA liked")
				}
				if _, err := os.Stat(foreign); err != nil {
					t.Errorf("another order's token: %v", err)
				}
			})
		}
	}
}

// withToken gives all challenges of an authorization another token.
func withToken(body []byte, token string) []byte {
	parts := bytes.Split(body, []byte(`"token": "`))
	if len(parts) == 1 {
		parts = bytes.Split(body, []byte(`"token":"`))
	}
	for i := 1; i < len(parts); i++ {
		_, after, _ := bytes.Cut(parts[i], []byte(`"`))
		parts[i] = append([]byte(token+`"`), after...)
	}
	return bytes.Join(parts, []byte(`"token":"`))
}

// TestCurlGuard runs the script before curl with a curl of the test's own.
func TestCurlGuard(t *testing.T) {
	t.Parallel()
	const jose, pem = "Content-Type: application/jose+json", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\r\n"
	for name, tt := range map[string]struct {
		args []string
		body string
		code int
		// want is what comes through, where it is not the body.
		want string
	}{
		"a token":              {args: []string{"-H", jose, "https://ca.test/a"}, body: `{"token":"abc_-9"}`},
		"no token":             {args: []string{"https://ca.test/dir"}, body: `{"newNonce":"https://ca.test/nonce"}`},
		"certificates":         {args: []string{"https://ca.test/cert"}, body: pem},
		"more beside them":     {args: []string{"https://ca.test/cert"}, body: pem + `"url":"https://aside.test/"`, code: 8},
		"a quote":              {args: []string{"-H", jose, "https://ca.test/a"}, body: `{"token":"x'y"}`, code: 8},
		"a space before":       {args: []string{"https://ca.test/a"}, body: `{"token" : "../x"}`, code: 8},
		"by an escaped name":   {args: []string{"https://ca.test/a"}, body: `{"tok\0145n":"../x"}`, want: `{"tok 145n":"../x"}`},
		"by a Unicode name":    {args: []string{"https://ca.test/a"}, body: `{"tok\u0065n":"../x"}`, want: `{"tok n":"../x"}`},
		"split by a newline":   {args: []string{"https://ca.test/a"}, body: "{\"to\nken\":\"../x\"}", want: `{"to ken":"../x"}`},
		"split by white space": {args: []string{"https://ca.test/a"}, body: "{\"to\n  ken\":\"../x\"}", want: `{"to   ken":"../x"}`},
		"split by a NUL":       {args: []string{"https://ca.test/a"}, body: "{\"to\x00ken\":\"../x\"}", code: 8},
		"the second one":       {args: []string{"https://ca.test/a"}, body: `{"token":"a"},{"token":"../"}`, code: 8},
		"a tab before":         {args: []string{"https://ca.test/a"}, body: "{\"token\"\t:\t\"../x\"}", code: 8},
		"two in a row":         {args: []string{"https://ca.test/a"}, body: `{"token":"token":"../x"}`, code: 8},
		"another string":       {args: []string{"https://ca.test/a"}, body: `{"detail":"no \"token\": here","x":"../"}`, want: `{"detail":"no  token : here","x":"../"}`},
		"backslashes":          {args: []string{"https://ca.test/a"}, body: `{"a":"\\","token":"x","b":"\\\"c\n\\\\d"}`, want: `{"a":" ","token":"x","b":"  c   d"}`},
		"a space in it":        {args: []string{"https://ca.test/a"}, body: `{"token":"a b"}`, code: 8},
		"pretty":               {args: []string{"https://ca.test/a"}, body: "{\r\n\t\"token\" : \"abc\"\r\n}\n\n", want: `{ "token" : "abc" }`},
		"nothing":              {args: []string{"https://ca.test/a"}},
		"no end":               {args: []string{"https://ca.test/a"}, body: `{"token":"a`, code: 8},
		"long":                 {args: []string{"https://ca.test/a"}, body: `{"token":"` + strings.Repeat("a", 300) + `"}`, code: 8},
		"escape sequence":      {args: []string{"https://ca.test/a"}, body: "{\"a\":\"\x1b[31m\"}", code: 8},
		"an order":             {args: []string{"-H", jose, "https://ca.test/a"}, body: `{"finalize":"https:\/\/ca.test\/f?a=1&b","authorizations":["https://ca.test/1", "https://ca.test/2"]}`, want: `{"finalize":"https://ca.test/f?a=1&b","authorizations":["https://ca.test/1", "https://ca.test/2"]}`},
		"a text":               {args: []string{"https://ca.test/a"}, body: "{\"detail\":\"it doesn't `cost` $1\"}", want: `{"detail":"it doesn t  cost   1"}`},
		"a line of settings":   {args: []string{"https://ca.test/a"}, body: `{"finalize":"https://ca.test/f\\\\nLe_PFXPassword=x;id;#"}`, code: 8},
		"two orders":           {args: []string{"https://ca.test/a"}, body: `{"finalize":"https://ca.test/f","finalize":"https://ca.test/f"}`, code: 8},
		"aside":                {args: []string{"https://ca.test/a"}, body: `{"newNonce":"https://aside.test/nonce"}`, code: 8},
		"aside, a longer name": {args: []string{"https://ca.test/a"}, body: `{"x-newOrder" : "https://aside.test/nonce"}`, code: 8},
		"a metadata service":   {args: []string{"https://ca.test/a"}, body: `{"renewalInfo":"http://169.254.169.254/"}`, code: 8},
		"an authz aside":       {args: []string{"https://ca.test/a"}, body: `{"authorizations":["https://ca.test/1","https://aside.test/2"]}`, code: 8},
		"asking aside":         {args: []string{"-H", jose, "https://aside.test/"}, body: "{}", code: 8},
		"asking nobody":        {args: []string{"-H", jose, ""}, body: "{}", code: 8},
		"a provider's token":   {args: []string{"https://api.dns.test/login"}, body: `{"token":"a+b/c="}`},
		"a provider's answer":  {args: []string{"https://api.dns.test/x"}, body: strings.Repeat("x", 3<<20)},
		"huge":                 {args: []string{"https://ca.test/a"}, body: strings.Repeat("x", 3<<20), code: 63},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, _, code := throughGuard(t, []string{"/bin/sh"}, tt.body, "", tt.args...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if want := cmp.Or(tt.want, tt.body); code == 0 && out != want || code != 0 && out != "" {
				t.Errorf("%.200q came through, want %.200q", out, want)
			}
		})
	}
}

// TestCurlGuardEnds: an answer without end is not waited for, and nothing of it comes through.
func TestCurlGuardEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	curl := filepath.Join(dir, "curl")
	if err := os.WriteFile(curl, []byte("#!/bin/sh\nexec /usr/bin/yes \"{}\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", acmesh.CurlScript, "https://ca.test/a")
	cmd.Env = []string{"CERTFERRY_CA=https://ca.test/", "CERTFERRY_CURL=" + curl, "CERTFERRY_RUN=" + dir}
	if out, err := cmd.Output(); err == nil || len(out) > 0 {
		t.Errorf("%d bytes came through (%v)", len(out), err)
	}
}

// TestMask: no part of a credential is told, whichever other it begins like, and not in base64 either.
func TestMask(t *testing.T) {
	t.Parallel()
	credentials := map[string]string{"USER": "CANARY7f3a", "TOKEN": "CANARY7f3a-9b21-secret", "ODD": "p w/&?+x"}
	for range 20 { // maps have no order
		for _, text := range []string{
			"token=CANARY7f3a-9b21-secret", "user CANARY7f3a", "q=p+w%2F%26%3F%2Bx", "q=p%20w%2F&%3F+x",
			"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("CANARY7f3a:CANARY7f3a-9b21-secret")),
			base64.StdEncoding.EncodeToString([]byte("xCANARY7f3a-9b21-secret")), base64.RawURLEncoding.EncodeToString([]byte("zzCANARY7f3a-9b21-secret!")),
		} {
			got := acmesh.Mask(credentials, text)
			for _, bad := range []string{"CANARY", "9b21", "w%2F", "Q0FOQVJZ", "NBTkFS", "DQU5BUl", "OWIyMS1zZWNy"} {
				if strings.Contains(got, bad) {
					t.Fatalf("%q is told as %q", text, got)
				}
			}
		}
	}
}

// TestLongCredentialsAreHiddenInLines: a private key of a provider, in a line that its hook prints.
func TestLongCredentialsAreHiddenInLines(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("s3cret", 1000)
	for _, before := range []int{0, 1990, 100_000} {
		told := acmesh.Told(map[string]string{"KEY": secret}, strings.Repeat(".", before)+secret+" is refused\nnext\n")
		if strings.Contains(told, "cret") || !strings.Contains(told, "next") {
			t.Errorf("behind %d bytes: told %.100q", before, told)
		}
	}
}

// TestOneWebrootForMany: acme.sh removes the folders that it made, with the tokens of all orders in them.
func TestOneWebrootForMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	root := filepath.Join(filepath.Dir(w.cfg.StateDir), "webroot")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	w.serve(t, http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(50 * time.Millisecond) // as a CA takes its time to come
		defer timer.Stop()
		<-timer.C
		http.FileServer(http.Dir(root)).ServeHTTP(out, r)
	}))
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, fmt.Sprintf("many-%d.example.test", n), fmt.Sprintf("many-%d-b.example.test", n))
			req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "webroot", Webroot: root}
			if _, err := w.issuer.Issue(t.Context(), req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left, err := filepath.Glob(filepath.Join(root, ".well-known", "acme-challenge", "*")); err != nil || len(left) > 0 {
		t.Errorf("tokens are left: %v, %v", left, err)
	}
}

// TestOnePortForMany: two orders cannot listen on one port at once.
func TestOnePortForMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	var wg sync.WaitGroup
	for n := range 3 {
		wg.Go(func() {
			req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, fmt.Sprintf("port-%d.example.test", n))
			req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "standalone"}
			if _, err := w.issuer.Issue(t.Context(), req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestForeignFoldersAreLeft: what is not this program's in the work folder is neither removed nor changed.
func TestForeignFoldersAreLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	w.cfg.WorkDir = t.TempDir()
	precious := filepath.Join(w.cfg.WorkDir, "precious", "sub")
	if err := errors.Join(os.MkdirAll(precious, 0o700), os.Chmod(w.cfg.WorkDir, 0o1777)); err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("/bin/sleep", "600")
	sleeper.Dir = precious
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	})
	before, err := os.Stat(w.cfg.WorkDir)
	if err != nil {
		t.Fatal(err)
	}
	w.open(t)
	if _, err := w.issuer.Recover(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(w.cfg.WorkDir)
	if err != nil || after.Mode() != before.Mode() {
		t.Errorf("mode %v, %v, was %v", after.Mode(), err, before.Mode())
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
	if err := sleeper.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process was killed: %v", err)
	}
}

// TestTwoHubsInOneFolder: the second would take the orders of the first for interrupted ones.
func TestTwoHubsInOneFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	lock, err := os.OpenFile(filepath.Join(w.cfg.WorkDir, "certferry-orders", ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := w.issuer.Recover(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "another hub orders in") {
		t.Errorf("error %v", err)
	}
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "second.test")
	req.Challenge = w.dns("x")
	if _, err := w.issuer.Issue(t.Context(), req); classOf(t, err) != issuer.Local || !strings.Contains(err.Error(), "another hub orders in") {
		t.Errorf("the second hub orders: %v", err)
	}
	if err := w.issuer.TestDNS(t.Context(), req.Challenge, "second.test", nil); classOf(t, err) != issuer.Local {
		t.Errorf("the second hub makes records: %v", err)
	}
}

// TestOddAnswersToTheHubItself: neither endless answers nor those that lead elsewhere.
func TestOddAnswersToTheHubItself(t *testing.T) {
	t.Parallel()
	secret := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		_, _ = out.Write([]byte("internal-page"))
	}))
	defer secret.Close()
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"endless": {func(out http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := out.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					return
				}
			}
		}, "too large"},
		"elsewhere": {func(out http.ResponseWriter, r *http.Request) { http.Redirect(out, r, secret.URL, http.StatusFound) }, "leads to another place"},
		"aside": {func(out http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(out, `{"newNonce":"%[1]s/n","newAccount":"%[1]s/a","newOrder":"%[1]s/o"}`, secret.URL)
		}, "leads to another place"},
		"a page": {func(out http.ResponseWriter, _ *http.Request) {
			out.WriteHeader(http.StatusForbidden)
			_, _ = out.Write([]byte("<h1>internal-page</h1>"))
		}, "not one of ACME"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, issuertest.PebbleConfig{Wrap: func(http.Handler) http.Handler { return tt.answer }})
			_, err := w.issuer.Account(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "internal-page") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestPlacesAndHooksThatAreRefused: an operator may not have the hub write into its system, or run a command.
func TestPlacesAndHooksThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	own := t.TempDir()
	w.cfg.Closed = []string{own}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	w.open(t)
	for _, webroot := range []string{"/", "/etc", "/etc/nginx", "/usr", "/usr/local", "/usr/local/bin", "/var", "/var/lib", "/var/spool", "/home", "/proc/self/cwd", "/root", w.cfg.StateDir, own, filepath.Join(own, "x"), link, "/nonexistent"} {
		req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "place.example.test")
		req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "webroot", Webroot: webroot}
		if _, err := w.issuer.Issue(t.Context(), req); classOf(t, err) != issuer.Permanent || !strings.Contains(err.Error(), "the webroot is") {
			t.Errorf("webroot %s: %v", webroot, err)
		}
	}
	allowed := t.TempDir()
	w.cfg.Webroots = []string{allowed}
	w.open(t)
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "place.example.test")
	req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "webroot", Webroot: t.TempDir()}
	if _, err := w.issuer.Issue(t.Context(), req); err == nil || !strings.Contains(err.Error(), "acme_webroots") {
		t.Errorf("beside acme_webroots: %v", err)
	}
	for hook, values := range map[string]map[string]string{
		"dns_nsd": {"Nsd_Command": "id"}, "dns_lexicon": {"PROVIDER": "x;id"},
	} {
		hookFile := filepath.Join(w.cfg.HooksDir, "dnsapi", hook+".sh")
		if err := os.WriteFile(hookFile, []byte(hook+"_info='X\nOptions:\n Nsd_Command Command\n PROVIDER Provider\n'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		req.Challenge = issuer.Challenge{Type: issuer.DNS01, Hook: hook, Credentials: values}
		if _, err := w.issuer.Issue(t.Context(), req); classOf(t, err) != issuer.Permanent || !strings.Contains(err.Error(), hook) {
			t.Errorf("%s: %v", hook, err)
		}
	}
}
