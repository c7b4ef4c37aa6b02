package main

import (
	"strings"
	"testing"

	"github.com/certferry/certferry/hub/daemon"
)

// TestImportSendsNoCommandToTheTerminal: acme.sh's folder may be somebody else's, and root reads what is told of it.
func TestImportSendsNoCommandToTheTerminal(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	err := writeImport(&out, &daemon.ACMEImport{
		Accounts: []string{"a\x1b]0;title\a"}, Left: []string{"certificate \x1b[2Jx\u202ey\u009b31m: no key", "first\rcertificate fine\nissuer fine"},
	})
	want := "account a\ufffd]0;title\ufffd\nleft: certificate \ufffd[2Jx\ufffdy\ufffd31m: no key\nleft: first\ufffdcertificate fine\ufffdissuer fine\n"
	if got := out.String(); err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}
