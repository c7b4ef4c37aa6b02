// Package inventory says which certificates stand on the server: for now, those at the targets of the policy.
package inventory

import (
	"os"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub/apiv1"
)

// maxFile bounds a certificate file, in bytes; maxNames the names that are told of one certificate.
const (
	maxFile  = 1 << 20
	maxNames = 200
)

// Scan reads the certificates at targets. What cannot be read is left out: the deployment tells of it.
func Scan(targets []agent.Target) []apiv1.FoundCertificate {
	found := []apiv1.FoundCertificate{}
	for _, t := range targets {
		if f, ok := read(t); ok {
			found = append(found, f)
		}
	}
	slices.SortFunc(found, func(a, b apiv1.FoundCertificate) int { return strings.Compare(a.Target, b.Target) })
	return found
}

func read(t agent.Target) (apiv1.FoundCertificate, bool) {
	info, err := os.Stat(t.Certificate)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxFile {
		return apiv1.FoundCertificate{}, false
	}
	data, err := os.ReadFile(t.Certificate)
	if err != nil {
		return apiv1.FoundCertificate{}, false
	}
	chain, err := bundle.ParseChain(data)
	if err != nil || len(chain) == 0 {
		return apiv1.FoundCertificate{}, false
	}
	leaf := chain[0]
	return apiv1.FoundCertificate{
		Target: t.Name, Names: slices.Clone(leaf.DNSNames[:min(len(leaf.DNSNames), maxNames)]), Issuer: clip(leaf.Issuer.CommonName),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(), LeafSHA256: bundle.LeafSHA256(leaf),
	}, true
}

func clip(text string) string {
	if len(text) > 256 {
		return strings.ToValidUTF8(text[:256], "")
	}
	return text
}
