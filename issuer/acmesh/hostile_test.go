package acmesh_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/issuertest"
)

// hostileCA says that everything is fine, with additions of its own.
type hostileCA struct {
	// directory and order replace fields of these documents; location stands behind an order's URL.
	directory, order map[string]any
	authz            string
	location         string
}

// ServeHTTP implements http.Handler.
func (ca hostileCA) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	base := "https://" + r.Host
	document := func(status int, fields, more map[string]any) {
		maps.Copy(fields, more)
		data, _ := json.Marshal(fields)
		out.WriteHeader(status)
		_, _ = out.Write(data)
	}
	out.Header().Set("Replay-Nonce", "bm9uY2U")
	out.Header().Set("Content-Type", "application/json")
	order := func(status string) map[string]any {
		return map[string]any{"status": status, "finalize": base + "/finalize/1", "certificate": base + "/cert/1", "authorizations": []string{base + "/authz/1"}}
	}
	switch path, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); path {
	case "dir":
		document(200, map[string]any{
			"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/order", "revokeCert": base + "/revoke", "keyChange": base + "/key",
		}, ca.directory)
	case "account":
		out.Header().Set("Location", base+"/account/1")
		document(201, map[string]any{"status": "valid"}, nil)
	case "order":
		out.Header().Set("Location", base+"/order/1"+ca.location)
		document(201, order("ready"), ca.order)
	case "finalize":
		document(200, order("valid"), ca.order)
	case "authz":
		_, _ = io.WriteString(out, strings.ReplaceAll(ca.authz, "@", base))
	case "cert":
		_, _ = io.WriteString(out, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	}
}

const validAuthz = `{"status":"valid","identifier":{"type":"dns","value":"hostile.test"},"challenges":[{"type":"http-01","url":"@/chall/1","token":"abc"}]}`

// TestHostileAnswers: what a CA answers is put into files that acme.sh runs again, into commands and into requests.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	if os.Getenv("ACME_SH") == "" {
		t.Skip("skipped: ACME_SH does not name the real acme.sh")
	}
	aside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the CA led to another place") }))
	t.Cleanup(aside.Close)
	const odd = "an address that is not one of its own"
	marker := filepath.Join(t.TempDir(), "marker")
	run := "x;id>" + marker + ";#"
	cases := map[string]struct {
		ca   hostileCA
		says string
	}{
		"a header's line":        {hostileCA{authz: validAuthz, location: `\nLe_PFXPassword=` + run}, odd},
		"a token's name":         {hostileCA{authz: strings.Replace(pendingAuthz, `"token":"abc"`, `"tok\\0145n":"x';id>`+marker+`;'"`, 1)}, ""},
		"a token in a text":      {hostileCA{authz: strings.Replace(pendingAuthz, `"token":"abc"`, `"x":"\"token\":\"x';id>`+marker+`;'"`, 1)}, ""},
		"metadata of a cloud":    {hostileCA{authz: validAuthz, directory: map[string]any{"renewalInfo": "http://169.254.169.254/latest"}}, odd},
		"another host's order":   {hostileCA{authz: validAuthz, directory: map[string]any{"newOrder": aside.URL + "/order"}}, odd},
		"an authz behind a hash": {hostileCA{authz: strings.Replace(pendingAuthz, `"status"`, `"x":"#`+aside.URL+`/#","status"`, 1)}, ""},
	}
	for _, n := range []int{4, 8} {
		cases[fmt.Sprintf("a line behind %d backslashes", n)] = struct {
			ca   hostileCA
			says string
		}{hostileCA{authz: validAuthz, order: map[string]any{"finalize": "@" + strings.Repeat(`\`, n) + "nLe_PFXPassword=" + run}}, odd}
	}
	for name, tt := range cases {
		for _, method := range []string{"webroot", "standalone"} {
			if method == "standalone" && !strings.Contains(name, "token") {
				continue
			}
			t.Run(name+" by "+method, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, issuertest.PebbleConfig{Wrap: func(http.Handler) http.Handler {
					return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
						ca := tt.ca
						if finalize, ok := ca.order["finalize"].(string); ok {
							ca.order = map[string]any{"finalize": strings.Replace(finalize, "@", "https://"+r.Host+"/finalize/1", 1)}
						}
						ca.ServeHTTP(out, r)
					})
				}})
				req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "hostile.test")
				req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: method}
				if method == "webroot" {
					req.Challenge.Webroot = t.TempDir()
				}
				_, err := w.issuer.Issue(t.Context(), req)
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %v, want %q", err, tt.says)
				}
				if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
					t.Error("the CA ran a command")
				}
			})
		}
	}
}

const pendingAuthz = `{"status":"pending","identifier":{"type":"dns","value":"hostile.test"},"challenges":[{"type":"http-01","status":"pending","url":"@/chall/1","token":"abc"}]}`

// shells are those that may be /bin/sh.
var shells = []string{"dash", "bash", "busybox"}

// TestCurlGuardInShells holds that nothing which a shell or acme.sh reads as more than text comes through, whatever a CA
// makes of the pieces of an attack.
func TestCurlGuardInShells(t *testing.T) {
	t.Parallel()
	pieces := []string{
		`\`, `\`, `\`, `n`, `0145`, `c`, `"`, `"`, `'`, "`", "$(id)", "tok", "en", "token", "finalize", "certificate", "newOrder", "url", `":"`, `" : "`, "[", "]", ",",
		"\n", "\r", "\t", "  ", "{", "}", "https://ca.test/a", "https://aside.test/", "Le_PFXPassword=", ";", "#", "-----BEGIN CERTIFICATE-----\n", "\x00", "\u00e9",
	}
	for _, shell := range shells {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			for range 40 {
				var body strings.Builder
				for range 2 + random.IntN(24) {
					body.WriteString(pieces[random.IntN(len(pieces))])
				}
				got, _, code := throughGuard(t, []string{path}, body.String(), "", "https://ca.test/x")
				if code != 0 {
					continue
				}
				pem := strings.HasPrefix(got, "-----BEGIN ") && !strings.Contains(got, `"`)
				if strings.ContainsAny(got, "\\'`$") || !pem && strings.ContainsAny(got, "\n\r\t\x00") {
					t.Errorf("%q came through as %q", body.String(), got)
				}
				for _, find := range asAcmeFinds {
					for _, match := range find.FindAllStringSubmatch(got, -1) {
						if match[1] != "" && !strings.HasPrefix(match[1], "https://ca.test/") && !isToken.MatchString(match[1]) {
							t.Errorf("%q: acme.sh would take %q", body.String(), match[0])
						}
					}
				}
			}
		})
	}
}

var (
	// asAcmeFinds are the expressions of acme.sh.
	asAcmeFinds = []*regexp.Regexp{
		regexp.MustCompile(`newOrder" *: *"([^"]*)"`), regexp.MustCompile(`"finalize" *: *"([^"]*)"`), regexp.MustCompile(`"certificate" *: *"([^"]*)"`),
		regexp.MustCompile(`"url" *: *"([^"]*)`), regexp.MustCompile(`"token" *: *"([^"]*)`),
	}
	isToken = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
)

// throughGuard is what acme.sh gets of an answer, by a shell, with the headers.
func throughGuard(t *testing.T, shell []string, body, headers string, args ...string) (got, gotHeaders string, code int) {
	t.Helper()
	dir := t.TempDir()
	curl := filepath.Join(dir, "curl")
	script := "#!/bin/sh\nword=''\nfor next in \"$@\"; do [ \"$word\" != --dump-header ] || file=$next; word=$next; done\n" +
		"[ -z \"$file\" ] || /bin/cat " + dir + "/headers >\"$file\"\nexec /bin/cat " + dir + "/body\n"
	err := errors.Join(os.WriteFile(filepath.Join(dir, "body"), []byte(body), 0o600), os.WriteFile(filepath.Join(dir, "headers"), []byte(headers), 0o600),
		os.WriteFile(filepath.Join(dir, "out"), []byte("HTTP/1.1 200\r\nof an earlier answer: x\r\n"), 0o600), os.WriteFile(curl, []byte(script), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(shell[0]) == "busybox" {
		shell = append(shell, "sh")
	}
	argv := append(append(shell[1:len(shell):len(shell)], acmesh.CurlScript, "--dump-header", filepath.Join(dir, "out")), args...)
	cmd := exec.CommandContext(t.Context(), shell[0], argv...)
	// It runs for each request, so that it starts no other program.
	cmd.Env = []string{"PATH=/nonexistent", "CERTFERRY_CA=https://ca.test/", "CERTFERRY_CURL=" + curl, "CERTFERRY_RUN=" + dir}
	out, _ := cmd.Output() // the exit code says it
	data, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	return string(out), string(data), cmd.ProcessState.ExitCode()
}

// TestCurlGuardHeaders: acme.sh keeps the Location of an order, and asks where Link leads.
func TestCurlGuardHeaders(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		headers, want string
		code          int
	}{
		"an order": {
			"HTTP/2 201 \r\nServer: x\r\nreplay-nonce: ab_-\r\nlocation: https://ca.test/o/1\r\nlink: <https://ca.test/dir>;rel=\"index\"\r\ncontent-type: application/json; charset=utf-8\r\n\r\n",
			"HTTP/1.1 201\nReplay-Nonce: ab_-\nLocation: https://ca.test/o/1\nContent-Type: application/json\n", 0,
		},
		"a busy CA": {"HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nDate: Fri, 27 Nov 2026 18:00:00 GMT\r\n", "HTTP/1.1 503\nRetry-After: 120\nDate: Fri, 27 Nov 2026 18:00:00 GMT\n", 0},
		"two chains": {
			"HTTP/1.1 200 OK\r\nLink: <https://ca.test/1>;rel=\"alternate\"\r\nLink: <https://ca.test/2>; rel=\"alternate\"\r\n",
			"HTTP/1.1 200\nLink: <https://ca.test/1>;rel=\"alternate\"\nLink: <https://ca.test/2>;rel=\"alternate\"\n", 0,
		},
		"aside before":   {"HTTP/1.1 200 Connection established\r\nLocation: https://aside.test/\r\n\r\nHTTP/1.1 204 x\r\n\r\n", "", 8},
		"hints before":   {"HTTP/1.1 103 Early\r\nReplay-Nonce: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200\n", 0},
		"a redirect":     {"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n", "HTTP/1.1 302\n", 0},
		"another host":   {"HTTP/1.1 201 x\r\nLocation: https://aside.test/\r\n", "", 8},
		"a host like it": {"HTTP/1.1 201 x\r\nLocation: https://ca.test.aside.test/\r\n", "", 8},
		"another scheme": {"HTTP/1.1 201 x\r\nLocation: http://ca.test/\r\n", "", 8},
		"a quote":        {"HTTP/1.1 201 x\r\nLocation: https://ca.test/';id;'\r\n", "", 8},
		"a backslash":    {"HTTP/1.1 201 x\r\nLocation: https://ca.test/\\nLe_PFXPassword=x\r\n", "", 8},
		"a chain aside":  {"HTTP/1.1 200 x\r\nLink: <http://169.254.169.254/>;rel=\"alternate\"\r\n", "", 8},
		"an empty nonce": {"HTTP/1.1 429 x\r\nReplay-Nonce: \r\nRetry-After: 9\r\n", "HTTP/1.1 429\nRetry-After: 9\n", 0},
		"no nonce":       {"HTTP/1.1 200 x\r\nReplay-Nonce: a\\nb\r\n", "", 8},
		"no status":      {"HTTP/1.1 x';id\r\n", "", 8},
		"an odd wait":    {"HTTP/1.1 503 x\r\nRetry-After: $(id)\r\n", "HTTP/1.1 503\n", 0},
	} {
		_, got, code := throughGuard(t, []string{"/bin/sh"}, "{}", tt.headers, "-X", "POST", "-H", "Content-Type: application/jose+json", "https://ca.test/x")
		if got != tt.want || code != tt.code {
			t.Errorf("%s: exit code %d, headers %q, want %d and %q", name, code, got, tt.code, tt.want)
		}
		if out, _, _ := throughGuard(t, []string{"/bin/sh"}, "raw", tt.headers, "-I", "https://ca.test/x"); out != tt.want {
			t.Errorf("%s: acme.sh reads %q, want %q", name, out, tt.want)
		}
	}
}
