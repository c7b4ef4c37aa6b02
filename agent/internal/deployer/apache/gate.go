// This file looks at every pair of a configuration, for httpd's own test does not, and a reload with a bad one ends
// the server.

package apache

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/apache/apacheconf"
	"github.com/certferry/certferry/agent/internal/hostfs"
)

// maxTold is how many bad pairs an error names.
const maxTold = 10

var (
	errGate   = errors.New("httpd's own test does not see this, and a reload would end the whole server; nothing was signalled")
	errSilent = errors.New("no answer")
)

// gate looks at every pair that p's configuration loads. dump is what httpd said for DUMP_CERTS, or empty.
func (h httpd) gate(ctx context.Context, p parent, phase agent.Phase, dump string) error {
	env, err := h.proc.Environ(p.PID)
	if err != nil {
		return &agent.StepError{Phase: phase, Err: err}
	}
	c := p.layout.parse(hostfs.New(""), p.options, env)
	problems := incomplete(c, dump)
	type pair struct {
		certificate, key, chain string
		client                  bool
	}
	checked := make(map[pair]bool)
	for _, s := range c.Sites {
		if err := ctx.Err(); err != nil {
			return &agent.StepError{Phase: phase, Err: err}
		}
		files := pair{s.Certificate, s.Key, s.Chain, s.Client}
		if checked[files] {
			continue
		}
		checked[files] = true
		// Each pair has the bounds of one scan: httpd itself reads them all.
		if err := checkSite(hostfs.New(""), s); err != nil {
			problems = append(problems, fmt.Sprintf("%s:%d: %v", s.File, s.Line, err))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	if more := len(problems) - maxTold; more > 0 {
		problems = append(problems[:maxTold], fmt.Sprintf("and %d more", more))
	}
	return &agent.StepError{Phase: phase, Output: strings.Join(problems, "\n"), Err: errGate}
}

// incomplete says why there may be pairs that c does not hold: what the parser could not follow, and certificates that
// httpd lists but the parser did not see.
func incomplete(c *apacheconf.Configuration, dump string) []string {
	var problems []string
	for _, f := range c.Faults {
		problems = append(problems, fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Message))
	}
	if strings.HasPrefix(dump, "…") {
		_, dump, _ = strings.Cut(dump, "\n") // The tail of a long list begins within a line.
	}
	for line := range strings.Lines(dump) {
		path, isPath := strings.CutPrefix(line, "  /")
		path = "/" + strings.TrimSpace(path)
		if isPath && !slices.Contains(c.Certificates, path) {
			problems = append(problems, fmt.Sprintf("httpd loads the certificate %s, which the agent found nowhere in the configuration", path))
		}
	}
	return problems
}

// checkSite says why httpd could not load the files of s.
func checkSite(files *hostfs.FS, s agent.Site) error {
	data, err := files.ReadFile(s.Certificate)
	if err != nil {
		return err
	}
	if s.Client {
		return named(s.Certificate, checkClient(data))
	}
	leaf, err := certificate(data)
	if err != nil {
		return named(s.Certificate, err)
	}
	if s.Chain != "" {
		chain, err := files.ReadFile(s.Chain)
		if err != nil {
			return err
		}
		if _, err := certificates(chain); err != nil {
			return named(s.Chain, err)
		}
	}
	if s.Key == "" {
		return nil // In a token.
	}
	if data, err = files.ReadFile(s.Key); err != nil {
		return err
	}
	key, err := privateKey(data)
	if err != nil {
		return named(s.Key, err)
	}
	return named(s.Key, match(leaf, key))
}

func named(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}

// blocks reads all PEM blocks, text between them passed over. The standard library passes over a damaged block as
// well; OpenSSL does not.
func blocks(data []byte) ([]*pem.Block, error) {
	var all []*pem.Block
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		all = append(all, block)
	}
	if bytes.Count(data, []byte("-----BEGIN ")) != len(all) {
		return nil, errors.New("a PEM block is damaged")
	}
	return all, nil
}

func certificate(data []byte) (*x509.Certificate, error) {
	all, err := certificates(data)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("it holds no certificate")
	}
	return all[0], nil
}

// certificates reads all certificates of a PEM file, and wants each to be one that OpenSSL takes at its usual level.
func certificates(data []byte) ([]*x509.Certificate, error) {
	pems, err := blocks(data)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, block := range pems {
		if !isCertificate(block) {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		if key, isRSA := c.PublicKey.(*rsa.PublicKey); isRSA && key.N.BitLen() < 2048 {
			return nil, fmt.Errorf("certificate %d has an RSA key of %d bits, fewer than 2048", len(all)+1, key.N.BitLen())
		}
		all = append(all, c)
	}
	return all, nil
}

func isCertificate(block *pem.Block) bool {
	return slices.Contains([]string{"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"}, block.Type)
}

// privateKey reads the first private key of a PEM file.
func privateKey(data []byte) (crypto.Signer, error) {
	pems, err := blocks(data)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(pems, isKey)
	if i < 0 {
		return nil, errors.New("it holds no private key")
	}
	return parseKey(pems[i])
}

func isKey(block *pem.Block) bool { return strings.HasSuffix(block.Type, "PRIVATE KEY") }

// parseKey never passes on what the standard library says of a key: it may describe parts of it.
func parseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return nil, errors.New("the private key is encrypted and cannot be checked; write it without a passphrase")
	case block.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("the private key is damaged or of an unknown kind")
	}
	return signer, nil
}

// match says why key is not that of leaf.
func match(leaf *x509.Certificate, key crypto.Signer) error {
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok:
		return errors.New("the certificate has a key of an unknown kind")
	case kind(leaf.PublicKey) != kind(key.Public()):
		return fmt.Errorf("the private key is %s, but the certificate is for %s", kind(key.Public()), kind(leaf.PublicKey))
	case !public.Equal(key.Public()):
		return errors.New("the private key is not that of the certificate")
	}
	return nil
}

func kind(key crypto.PublicKey) string {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return "RSA"
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	}
	return fmt.Sprintf("%T", key)
}

// checkClient looks at a file of SSLProxyMachineCertificateFile: certificates, each with its key before or after it.
// A certificate without a key is passed over, as httpd does.
func checkClient(data []byte) error {
	pems, err := blocks(data)
	if err != nil {
		return err
	}
	var leaf *x509.Certificate
	var key crypto.Signer
	for _, block := range pems {
		switch {
		case isCertificate(block):
			if leaf != nil {
				key = nil // That of the pair before.
			}
			leaf, err = certificate(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
		case isKey(block):
			if key != nil {
				leaf = nil
			}
			key, err = parseKey(block)
		}
		if err == nil && leaf != nil && key != nil {
			err = match(leaf, key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
