// This file keeps what a CA answers from hurting the hub: acme.sh puts parts of it into shell text and file names.

package acmesh

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
)

// curlScript stands before curl for acme.sh.
//
//go:embed shell/curl.sh
var curlScript string

// badFile is there where the CA sent what is no token.
const badFile = "ca.bad"

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
	if err := h.root.MkdirAll("bin", 0o700); err != nil {
		return err
	}
	return h.root.WriteFile(filepath.Join("bin", "curl"), []byte(curlScript), 0o700)
}

// guarded says that the CA sent what is no token.
func (h *home) guarded() bool {
	_, err := h.root.Stat(badFile)
	return err == nil
}

// bounded is a transport whose answers end: a CA can neither fill the memory nor lead to another place.
type bounded struct{ http.RoundTripper }

// maxBody bounds an answer of a CA, in bytes: a chain of ten certificates is a tenth of it.
const maxBody = 1 << 20

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
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
