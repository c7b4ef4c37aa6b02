// This file looks into certificate files: what is in them, and what is wrong with that.

package inventory

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/hostfs"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub/apiv1"
)

// leastRSA is the shortest RSA key that clients take, in bits.
const leastRSA = 2048

// files reads files below one root folder; *hostfs.FS is one.
type files interface {
	ReadFile(path string) ([]byte, error)
	Stat(path string) (fs.FileInfo, error)
}

func (l *listing) below(root string) files {
	if l.roots[root] == nil {
		l.roots[root] = hostfs.New(root)
	}
	return l.roots[root]
}

// examine reads the file of each record.
func (l *listing) examine() {
	for _, r := range l.records {
		r.ManagedBy = manager(r)
		if r.site.Format != "" && r.site.Format != agent.FormatPEM {
			continue // a key store says nothing without its password
		}
		l.read(r)
	}
}

func (r *record) problem(kind apiv1.ProblemKind, format string, args ...any) {
	if !slices.ContainsFunc(r.Problems, func(p apiv1.FoundProblem) bool { return p.Kind == kind }) {
		r.Problems = append(r.Problems, apiv1.FoundProblem{Kind: kind, Message: clip(fmt.Sprintf(format, args...))})
	}
}

func (l *listing) read(r *record) {
	data, err := l.below(r.root).ReadFile(r.Path)
	if err != nil {
		r.problem(apiv1.ProblemUnreadable, "%v", err)
		return
	}
	chain, err := certificates(data)
	if err != nil {
		r.problem(apiv1.ProblemMalformed, "%v", err)
		return
	}
	if r.site.Chain != "" {
		if more, err := l.below(r.root).ReadFile(r.site.Chain); err == nil {
			rest, _ := certificates(more) // without them the chain is incomplete, which is told
			chain = append(chain, rest...)
		}
	}
	leaf := chain[0]
	r.Names, r.Issuer = bounded(leaf.DNSNames, maxNames), clip(leaf.Issuer.CommonName)
	r.NotBefore, r.NotAfter, r.LeafSHA256 = leaf.NotBefore.UTC(), leaf.NotAfter.UTC(), bundle.LeafSHA256(leaf)
	r.KeyType = string(bundle.TypeOf(leaf.PublicKey))
	l.judge(r, chain)
	l.readKey(r, leaf)
}

// certificates reads the certificates of a PEM file as a server does: what else stands there is passed over.
func certificates(data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate in it cannot be read: %w", err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return chain, nil
}

// privateKey reads the first private key of a PEM file.
func privateKey(data []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return bundle.ParseKey(pem.EncodeToMemory(block))
		}
	}
	return nil, errors.New("it holds no private key in PEM")
}

// judge says what is wrong with the certificate itself.
func (l *listing) judge(r *record, chain []*x509.Certificate) {
	leaf := chain[0]
	switch {
	case l.now.After(leaf.NotAfter):
		r.problem(apiv1.ProblemExpired, "it ended %s", leaf.NotAfter.UTC().Format("2006-01-02 15:04 MST"))
	case l.now.Before(leaf.NotBefore):
		r.problem(apiv1.ProblemNotYetValid, "it begins %s", leaf.NotBefore.UTC().Format("2006-01-02 15:04 MST"))
	}
	if key, ok := leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < leastRSA {
		r.problem(apiv1.ProblemWeakKey, "its RSA key has %d bits; clients want %d", key.N.BitLen(), leastRSA)
	}
	switch {
	case slices.Equal(leaf.RawIssuer, leaf.RawSubject):
		r.problem(apiv1.ProblemSelfSigned, "it is signed by itself: no client trusts it")
	case len(chain) == 1:
		r.problem(apiv1.ProblemChainIncomplete, "the file holds no certificate of the issuer %q", leaf.Issuer.CommonName)
	case leaf.CheckSignatureFrom(chain[1]) != nil:
		r.problem(apiv1.ProblemChainIncomplete, "the certificate that follows is not its issuer")
	}
	for _, use := range r.Uses {
		for _, name := range use.Names {
			if !use.Client && isName(name) && !covers(leaf, name) {
				r.problem(apiv1.ProblemNameMismatch, "it is not for %s, which %s:%d serves with it", name, use.File, use.Line)
			}
		}
	}
}

// isName says that a configured server name is one that a client could ask for.
func isName(name string) bool {
	return strings.Contains(name, ".") && !strings.ContainsAny(name, "~^$*/ ") && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, ".")
}

func covers(leaf *x509.Certificate, name string) bool { return leaf.VerifyHostname(name) == nil }

// readKey compares the private key with the leaf, and looks who may read it.
func (l *listing) readKey(r *record, leaf *x509.Certificate) {
	if r.Key == "" {
		return
	}
	fsys := l.below(r.root)
	data, err := fsys.ReadFile(r.Key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.problem(apiv1.ProblemKeyMissing, "its private key %s is not there", r.Key)
		return
	case errors.Is(err, fs.ErrPermission):
		return // without root's rights, that is as it should be
	case err != nil:
		r.problem(apiv1.ProblemKeyMissing, "its private key cannot be read: %v", err)
		return
	}
	if info, err := fsys.Stat(r.Key); err == nil && info.Mode().Perm()&0o004 != 0 {
		r.problem(apiv1.ProblemKeyExposed, "everybody may read its private key %s (mode %04o)", r.Key, info.Mode().Perm())
	}
	key, err := privateKey(data)
	if err != nil {
		r.problem(apiv1.ProblemKeyMismatch, "its private key cannot be used: %v", err)
		return
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		r.problem(apiv1.ProblemKeyMismatch, "the private key %s belongs to another certificate", r.Key)
	}
}
