// This file keeps what a CA answers from hurting the hub: acme.sh puts parts of it into shell text and file names.

package acmesh

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// curlScript stands before curl for acme.sh.
//
//go:embed shell/curl.sh
var curlScript string

// badFile is there where the script ended acme.sh; it says why by a word.
const badFile = "ca.bad"

// badAnswers are the words of the script.
var badAnswers = map[string]string{ //nolint:gosec // none of them is a secret
	"token":   "the CA sent a challenge whose token is none (RFC 8555 §8.3)",
	"address": "the CA sent an address that is not one of its own, of letters, digits and . _ ~ / % = ? & + : @ - only",
	"header":  "the CA sent a header that is none of HTTP or ACME",
	"control": "the CA sent control characters in its answer",
}

// programDirs are where acme.sh finds programs.
const programDirs = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// guard puts the script before curl, for runs that talk to the CA at directory.
func (h *home) guard(directory string) error {
	u, err := url.Parse(directory)
	if err != nil {
		return err
	}
	h.ca = u.Scheme + "://" + u.Host + "/"
	for _, dir := range filepath.SplitList(programDirs) {
		path := filepath.Join(dir, "curl")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			h.curl = path
			break
		}
	}
	if h.curl == "" {
		return errors.New("curl is not installed: acme.sh asks the CA with it")
	}
	return h.put(filepath.Join("bin", "curl"), curlScript, 0o700)
}

// guarded says what the CA sent that acme.sh must not get, empty for nothing.
func (h *home) guarded() string {
	data, err := h.read(badFile)
	if err != nil {
		return ""
	}
	return cmp.Or(badAnswers[strings.TrimSpace(string(data))], "the CA sent what acme.sh must not get")
}

// ofCA is a plain URL, such as a CA may give. It holds nothing that a shell, a file of settings or a log reads as anything
// but itself.
var ofCA = regexp.MustCompile(`^https://[A-Za-z0-9.-]+(:[0-9]+)?/[A-Za-z0-9._~/%=?&+:@-]*$`)

// isOwn says that a URL that a CA gave is a plain one on the host of its directory.
func isOwn(address, directory string) bool {
	there, err := url.Parse(address)
	home, err2 := url.Parse(directory)
	return err == nil && err2 == nil && len(address) <= maxURL && ofCA.MatchString(address) && there.Host == home.Host
}

// bounded is a transport whose answers end: a CA can neither fill the memory nor lead to another place.
type bounded struct {
	http.RoundTripper

	directory string
}

// maxBody bounds an answer of a CA, in bytes: a chain of ten certificates is a tenth of it.
const maxBody = 1 << 20

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	if !isOwn(req.URL.String(), b.directory) {
		return nil, errors.New("the CA leads to another place, which is not followed")
	}
	answer, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= 300 && answer.StatusCode < 400 {
		_ = answer.Body.Close()
		return nil, fmt.Errorf("the CA leads to another place (status %d), which is not followed", answer.StatusCode)
	}
	answer.Body = &boundedBody{ReadCloser: answer.Body, left: maxBody}
	return answer, nil
}

type boundedBody struct {
	io.ReadCloser

	left int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the CA's answer is too large")
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
