package acmesh

import (
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/issuer"
)

var start = time.Date(2026, 11, 23, 0, 15, 57, 0, time.UTC)

const stamp = "[Mon Nov 23 00:15:57 UTC 2026] "

func logOf(lines ...string) string { return stamp + strings.Join(lines, "\n"+stamp) + "\n" }

func TestClassify(t *testing.T) {
	t.Parallel()
	limited := `original='{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates (50) already issued, retry after 2026-11-30 01:15:57 UTC: see","status":429}'`
	for name, tt := range map[string]struct {
		log, output string
		code        int
		class       issuer.Class
		acmeType    string
		host        string
		wait        time.Duration
	}{
		"malformed name":      {log: logOf(`original='{"type":"urn:ietf:params:acme:error:malformed","detail":"bad","status":400}'`), code: 1, class: issuer.Permanent, acmeType: "malformed"},
		"forgotten order":     {log: logOf(`original='{"type":"urn:ietf:params:acme:error:malformed","detail":"no order","status":404}'`), code: 1, class: issuer.Retryable, acmeType: "malformed"},
		"rate limit in text":  {log: logOf(limited), code: 1, class: issuer.RateLimited, acmeType: "rateLimited", wait: 7*24*time.Hour + time.Hour},
		"rate limit header":   {log: logOf("responseHeaders='HTTP/2 429\nretry-after: 7200'", `original='{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slow down","status":429}'`), code: 1, class: issuer.RateLimited, acmeType: "rateLimited", wait: 2 * time.Hour},
		"rate limit for ever": {log: logOf(strings.Replace(limited, "2026-11-30", "2999-01-01", 1)), code: 1, class: issuer.RateLimited, acmeType: "rateLimited", wait: 30 * 24 * time.Hour},
		"bare 429":            {log: logOf("original='no json'", "code='429'"), code: 1, class: issuer.RateLimited, acmeType: "rateLimited", wait: time.Hour},
		// acme.sh logs the status before the body, which a load balancer writes as it likes.
		"bare 429 as logged":        {log: logOf("code='429'", "original='<html>'", "response='<html>'"), code: 1, class: issuer.RateLimited, acmeType: "rateLimited", wait: time.Hour},
		"bare 502 as logged":        {log: logOf("code='502'", "original='<html>'"), code: 1, class: issuer.Retryable, acmeType: "serverInternal"},
		"503 with a long wait":      {log: logOf("responseHeaders='HTTP/2 503\nretry-after: 86400'", "code='503'", "original='<html>'"), code: 1, class: issuer.RateLimited, acmeType: "serverInternal", wait: 24 * time.Hour},
		"wait until a date":         {log: logOf("responseHeaders='HTTP/2 429\nDate: Mon, 23 Nov 2026 10:00:00 GMT\nRetry-After: Mon, 23 Nov 2026 13:00:00 GMT'", `original='{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slow down","status":429}'`), code: 1, class: issuer.RateLimited, acmeType: "rateLimited", wait: 3 * time.Hour},
		"a problem of one name":     {log: logOf("code='403'", `original='{"type":"urn:ietf:params:acme:error:malformed","detail":"some names were refused","status":403,"subproblems":[{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"policy forbids it","identifier":{"type":"dns","value":"bad.example"}}]}'`), code: 1, class: issuer.Permanent, acmeType: "rejectedIdentifier", host: "bad.example"},
		"success after a 502":       {log: logOf("code='502'", "original='<html>'", "code='200'", "original='{}'"), output: stamp + "Please check log file for more details: /x/job.log", code: 1, class: issuer.Retryable},
		"order fails while signing": {log: logOf("code='200'", `original='{"status":"invalid","error":{"type":"urn:ietf:params:acme:error:caa","detail":"CAA forbids"}}'`), code: 1, class: issuer.Permanent, acmeType: "caa"},
		"no certificate comes":      {log: logOf("code='200'", "original='x'"), output: stamp + "Signing failed:\n", code: 1, class: issuer.Retryable},
		"CAA at finalize":           {log: logOf(`original='{"type":"urn:ietf:params:acme:error:caa","detail":"CAA forbids","status":403}'`), code: 1, class: issuer.Permanent, acmeType: "caa"},
		"server error":              {log: logOf("original=''", "code='503'"), code: 1, class: issuer.Retryable, acmeType: "serverInternal"},
		"account gone":              {log: logOf(`original='{"type":"urn:ietf:params:acme:error:accountDoesNotExist","detail":"x","status":400}'`), code: 1, class: issuer.Account, acmeType: "accountDoesNotExist"},
		"validation": {
			log:  logOf(`original='{"identifier":{"type":"dns","value":"h1.test"},"status":"invalid","challenges":[{"type":"http-01","error":{"type":"urn:ietf:params:acme:error:connection","detail":"refused"}}]}'`),
			code: 1, class: issuer.ValidationFailed, acmeType: "connection", host: "h1.test",
		},
		"wrong token is validation, not account": {
			log:  logOf(`original='{"identifier":{"value":"h1.test"},"challenges":[{"error":{"type":"urn:ietf:params:acme:error:unauthorized","detail":"404"}}]}'`),
			code: 1, class: issuer.ValidationFailed, acmeType: "unauthorized", host: "h1.test",
		},
		"later success clears": {log: logOf(`original='{"type":"urn:ietf:params:acme:error:badNonce","detail":"x","status":400}'`, `original='{"status":"valid"}'`, "code='200'"), output: stamp + "Error adding TXT record to domain: _acme-challenge.a", code: 1, class: issuer.DNSProvider},
		"clean-up is not the cause": {
			log:    logOf("_on_issue_err", `original='{"type":"urn:ietf:params:acme:error:malformed","detail":"x","status":400}'`),
			output: stamp + "Cannot write token to file: /root/nope", code: 1, class: issuer.Permanent,
		},
		"connection refused":  {output: "Please refer to https://curl.haxx.se/libcurl/c/libcurl-errors.html for error code: 7", code: 1, class: issuer.Retryable},
		"other curl error":    {output: "libcurl-errors.html for error code: 92", code: 1, class: issuer.Retryable},
		"untrusted CA":        {output: "libcurl-errors.html for error code: 60", code: 1, class: issuer.Permanent},
		"no hook":             {code: 3, class: issuer.Permanent},
		"port busy":           {output: "tcp port 80 is already used by ((\"socat\"", code: 1, class: issuer.Retryable},
		"disk full":           {output: "write error: No space left on device", code: 0, class: issuer.Local},
		"no certificate":      {code: 0, class: issuer.Local},
		"unknown":             {output: stamp + "Something odd\n" + stamp + "Please add '--debug' or '--log'", code: 1, class: issuer.Retryable},
		"nothing at all":      {code: 1, class: issuer.Retryable},
		"nonces":              {output: "Giving up sending to CA server after 20 retries.", code: 1, class: issuer.Retryable},
		"wildcard by http-01": {output: "Supported validation types are: dns-01", code: 1, class: issuer.Permanent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, date := range []string{stamp, ""} { // acme.sh is told to leave dates out
				log, output := strings.ReplaceAll(tt.log, stamp, date), strings.ReplaceAll(tt.output, stamp, date)
				got := classify(log, result{output: output, code: tt.code}, start)
				if got.Class != tt.class || got.ACMEType != tt.acmeType || got.Name != tt.host || got.RetryAfter != tt.wait {
					t.Errorf("with %q: got %+v, want class %s type %q name %q wait %s", date, got, tt.class, tt.acmeType, tt.host, tt.wait)
				}
			}
		})
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(logOf(`original='{"type":"urn:ietf:params:acme:error:malformed"}'`, "code='400'"), "text", 1)
	f.Fuzz(func(t *testing.T, log, output string, code int) {
		got := classify(log, result{output: output, code: code}, start)
		if got == nil || got.Class == "" || strings.ContainsAny(got.Detail, "\n\x00") || len(got.Detail) > 3000 {
			t.Errorf("classified as %+v", got)
		}
	})
}
