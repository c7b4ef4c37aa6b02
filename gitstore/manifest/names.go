// This file says what may be called how, and where each document stands in the repository.

package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	// maxNames bounds the DNS names of one certificate; no public CA takes more.
	maxNames = 100
	// maxBundle bounds a sealed bundle, in bytes.
	maxBundle = 1 << 20
	// maxBundleKey bounds the key packet of a shared bundle, in bytes; one has about 96.
	maxBundleKey = 1 << 10
)

// MainBranch is the branch that people read and review.
const MainBranch = "refs/heads/main"

// serverBranches is what the branches of servers start with.
const serverBranches = "refs/heads/servers/"

// proposalBranches are the branches of proposals.
const proposalBranches = "refs/heads/proposals/"

// ServerBranch is the branch that the agent of a server reads.
func ServerBranch(server string) string { return serverBranches + server }

// ProposalPrefix starts the branches on which issues of a certificate wait for review.
func ProposalPrefix(certificate string) string { return proposalBranches + certificate + "/" }

// ProposalBranch is the branch on which one issue of a certificate waits for review; serial is in lower-case hex.
func ProposalBranch(certificate, serial string) string { return ProposalPrefix(certificate) + serial }

// ProposalOf is the certificate of a proposal's branch, empty for other branches.
func ProposalOf(ref string) string {
	rest, ok := strings.CutPrefix(ref, proposalBranches)
	name, _, complete := strings.Cut(rest, "/")
	if !ok || !complete {
		return ""
	}
	return name
}

// CertificatePath is where the intent of a certificate stands on main.
func CertificatePath(name string) string { return "certificates/" + name + ".yaml" }

// RolloutPath is where the rollout of a certificate stands on main while it is under way.
func RolloutPath(name string) string { return "rollouts/" + name + ".yaml" }

// ServerPath is where the intent of a server stands on main.
func ServerPath(name string) string { return "servers/" + name + ".yaml" }

// IssuerPath is where an issuer stands on main.
func IssuerPath(name string) string { return "issuers/" + name + ".yaml" }

// IssuedDir is the folder on main of what was issued for a certificate. It is spread by the first two hex digits of
// the name's SHA-256, so that trees stay small.
func IssuedDir(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "issued/" + hex.EncodeToString(sum[:1]) + "/" + name
}

// BundlePath is where a certificate's sealed bundle stands on a server's branch.
func BundlePath(certificate string) string { return BundleDir + "/" + certificate + ".pgp" }

// ValidName says what is wrong with the name of a certificate, server, issuer, deployer or target, nil for nothing.
// The name becomes part of paths and references, hence the small alphabet. The error does not repeat the name.
func ValidName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > 100:
		return errors.New("the name has more than 100 characters")
	case hasOther(name):
		return errors.New("the name may hold lower-case letters, digits, dots, hyphens and underscores only")
	case !isAlphanumeric(name[0]) || !isAlphanumeric(name[len(name)-1]):
		return errors.New("the name must start and end with a letter or digit")
	case strings.Contains(name, ".."):
		return errors.New("the name must not hold two dots in a row")
	case strings.HasSuffix(name, ".lock"):
		return errors.New("the name must not end with .lock, which Git keeps for itself")
	}
	return nil
}

// alphanumeric is the ASCII letters and digits. Upper case is spelled out: folding would let in letters such as the
// Kelvin sign.
const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// only says whether s consists of the ASCII characters of alphabet.
func only(s, alphabet string) bool {
	for i := range len(s) {
		if strings.IndexByte(alphabet, s[i]) < 0 {
			return false
		}
	}
	return true
}

func hasOther(name string) bool {
	for i := range len(name) {
		if c := name[i]; !isAlphanumeric(c) && c != '.' && c != '-' && c != '_' {
			return true
		}
	}
	return false
}

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// ValidDNSName says what is wrong with a DNS name for a certificate, nil for nothing: A-labels in lower case
// (RFC 5890), with "*." in front for a wildcard. The error does not repeat the name.
func ValidDNSName(name string) error {
	host, wildcard := strings.CutPrefix(name, "*.")
	labels := strings.Split(host, ".")
	switch {
	case name == "":
		return errors.New("the DNS name is empty")
	case len(name) > 253:
		return errors.New("the DNS name has more than 253 characters")
	case strings.Contains(host, "*"):
		return errors.New("a wildcard stands for one whole label at the front, as in *.example.com")
	case wildcard && len(labels) < 2:
		return errors.New("a wildcard needs at least two labels behind it, as in *.example.com")
	}
	for _, label := range labels {
		if err := validLabel(label); err != nil {
			return err
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return errors.New("the DNS name ends in a number: IP addresses are not supported")
	}
	return nil
}

func validLabel(label string) error {
	switch {
	case label == "":
		return errors.New("the DNS name holds an empty label")
	case len(label) > 63:
		return errors.New("a label of the DNS name has more than 63 characters")
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("a label of the DNS name starts or ends with a hyphen")
	}
	for i := range len(label) {
		if c := label[i]; !isAlphanumeric(c) && c != '-' {
			return errors.New("the DNS name may hold lower-case letters, digits and hyphens only (write an international name as xn--…)")
		}
	}
	return nil
}

// validNames checks the DNS names of one certificate; key says which of them is wrong.
func validNames(names []string) (key string, err error) {
	if len(names) == 0 || len(names) > maxNames {
		return "names", fmt.Errorf("must be 1 to %d DNS names", maxNames)
	}
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		key = fmt.Sprintf("names[%d]", i)
		if err := ValidDNSName(name); err != nil {
			return key, err
		}
		if seen[name] {
			return key, errors.New("stands there twice")
		}
		seen[name] = true
	}
	return "", nil
}
