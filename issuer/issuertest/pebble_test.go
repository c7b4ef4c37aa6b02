package issuertest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/certferry/certferry/issuer/issuertest"
)

func TestDNSManagementKeepsRecords(t *testing.T) {
	t.Parallel()
	p, err := issuertest.StartPebble(t.Context(), issuertest.PebbleConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	post := func(path, body string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.DNSManagement+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	if status := post("/set-txt", `{"Host": "_acme-challenge.a.test.", "Value": "v"}`); status != http.StatusOK {
		t.Errorf("set: status %d", status)
	}
	if got := p.DNS.GetDNSTXTRecords("_acme-challenge.a.test"); len(got) != 1 || got[0] != "v" {
		t.Errorf("records %q", got)
	}
	post("/clear-txt", `{"Host": "_acme-challenge.a.test."}`)
	if got := p.DNS.GetDNSTXTRecords("_acme-challenge.a.test"); len(got) != 0 {
		t.Errorf("records %q after clearing", got)
	}
	if status := post("/set-txt", "garbage"); status != http.StatusBadRequest {
		t.Errorf("garbage: status %d", status)
	}
}
