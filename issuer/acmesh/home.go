// This file makes the throw-away home of one run, in the form in which acme.sh would have left it after an earlier
// order, so that one command line serves for a first issue and for a renewal.

package acmesh

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
)

const (
	// maxLog bounds what is read of acme.sh's log, in bytes.
	maxLog  = 8 << 20
	acmeURN = "urn:ietf:params:acme:error:"
)

// home is the folder of one run.
type home struct {
	dir  string
	cert string
}

// newHome makes the folder with everything that acme.sh reads.
func (i *Issuer) newHome(req issuer.Request, a *account) (*home, error) {
	dir, err := os.MkdirTemp(i.cfg.WorkDir, req.ID+"-") // made with mode 0700
	if err != nil {
		return nil, err
	}
	main := req.Names[0]
	h := &home{dir: dir, cert: filepath.Join(dir, "certs", main+"_ecc")}
	u, err := url.Parse(i.cfg.Directory)
	if err != nil {
		return nil, errors.Join(err, h.remove())
	}
	account := filepath.Join(dir, "ca", u.Hostname(), filepath.FromSlash(strings.TrimPrefix(u.Path, "/")))
	digest := sha256.Sum256(a.keyPEM)
	files := map[string]string{
		filepath.Join(account, "account.key"): string(a.keyPEM),
		filepath.Join(account, "ca.conf"): assign("ACCOUNT_URL", a.URL) +
			assign("CA_KEY_HASH", base64.StdEncoding.EncodeToString(digest[:])),
		filepath.Join(h.cert, main+".conf"): i.domainConf(req),
		filepath.Join(h.cert, main+".csr"):  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: req.CSR})),
	}
	if len(req.Previous) > 0 {
		files[filepath.Join(h.cert, main+".cer")] = string(req.Previous)
	}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return nil, errors.Join(err, h.remove())
	}
	for path, data := range files {
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = os.WriteFile(path, []byte(data), 0o600)
		}
		if err != nil {
			return nil, errors.Join(err, h.remove())
		}
	}
	return h, nil
}

// assign is a line of acme.sh's configuration. The values were checked to hold no quote.
func assign(key, value string) string { return key + "='" + value + "'\n" }

// domainConf is the configuration that acme.sh keeps of a certificate.
func (i *Issuer) domainConf(req issuer.Request) string {
	alt := "no"
	if len(req.Names) > 1 {
		alt = strings.Join(req.Names[1:], ",")
	}
	webroot := "no" // standalone
	switch {
	case req.Challenge.Type == issuer.DNS01:
		webroot = req.Challenge.Hook
	case req.Challenge.Method == "webroot":
		webroot = req.Challenge.Webroot
	case req.Challenge.Method == "stateless":
		webroot = "stateless"
	}
	conf := assign("Le_Domain", req.Names[0]) + assign("Le_Alt", alt) + assign("Le_Webroot", webroot) +
		assign("Le_API", i.cfg.Directory) + assign("Le_Keylength", "ec-256") +
		assign("Le_DNSSleep", strconv.Itoa(int(i.cfg.DNSWait/time.Second))) +
		assign("Le_HTTPPort", strconv.Itoa(i.cfg.StandalonePort))
	if req.Profile != "" {
		conf += assign("Le_Certificate_Profile", req.Profile)
	}
	if req.PreferredChain != "" {
		conf += assign("Le_Preferred_Chain", "__ACME_BASE64__START_"+base64.StdEncoding.EncodeToString([]byte(req.PreferredChain))+"__ACME_BASE64__END_")
	}
	return conf
}

// chain reads and checks the chain that acme.sh left. An exit code of 0 proves nothing: a full disk leaves an empty
// file behind one.
func (h *home) chain(req issuer.Request, now time.Time) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(filepath.Join(h.cert, "fullchain.cer"))
	if err != nil {
		return nil, errors.New("acme.sh left no certificate")
	}
	chain, err := bundle.ParseChain(data)
	if err != nil {
		return nil, fmt.Errorf("read what acme.sh left: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	if string(csr.RawSubjectPublicKeyInfo) != string(chain[0].RawSubjectPublicKeyInfo) {
		return nil, errors.New("acme.sh left a certificate for another key")
	}
	if err := (&bundle.Bundle{Leaf: chain[0], Chain: chain[1:]}).Check(req.Names, now); err != nil {
		return nil, fmt.Errorf("check what acme.sh left: %w", err)
	}
	return chain, nil
}

// log returns the end of acme.sh's own log, empty where there is none.
func (h *home) log() string {
	file, err := os.Open(filepath.Join(h.dir, "job.log"))
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err == nil && info.Size() > maxLog {
		_, _ = file.Seek(-maxLog, io.SeekEnd) // the end tells what went wrong
	}
	data, _ := io.ReadAll(io.LimitReader(file, maxLog)) // a part of a log is better than none
	return string(data)
}

func (h *home) remove() error { return os.RemoveAll(h.dir) }
