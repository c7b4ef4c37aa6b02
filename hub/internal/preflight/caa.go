// This file judges CAA records as a CA does (RFC 8659 §4, RFC 8657).

package preflight

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// criticalFlag says that a CA which does not know the tag must not issue (RFC 8659 §4.1).
const criticalFlag = 128

// verdict is what CAA records mean for one CA.
type verdict int

const (
	caaAllows verdict = iota
	caaForbids
	// caaCritical: a record is marked critical that CAs do not know.
	caaCritical
	// caaMethod: the CA may, but not by this challenge.
	caaMethod
	// caaAccount: the CA may, for one account only, and which that is cannot be told here.
	caaAccount
	// caaUnknown: there are limits, and it is not known by which name the CA goes.
	caaUnknown
)

// judge says what records mean for a CA of these identities that validates by method.
func judge(records []*dns.CAA, identities []string, wildcard bool, method string) verdict {
	var issue, wild []string
	for _, r := range records {
		switch tag := strings.ToLower(r.Tag); {
		case tag == "issue":
			issue = append(issue, r.Value)
		case tag == "issuewild":
			wild = append(wild, r.Value)
		case !slices.Contains([]string{"iodef", "issuemail", "issuevmc", "contactemail", "contactphone"}, tag) && r.Flag&criticalFlag != 0:
			return caaCritical
		}
	}
	if wildcard && len(wild) > 0 {
		issue = wild
	}
	switch {
	case len(issue) == 0:
		return caaAllows
	case len(identities) == 0:
		return caaUnknown
	}
	best := caaForbids
	for _, value := range issue {
		got := judgeOne(value, identities, method)
		switch {
		case got == caaAllows:
			return caaAllows
		case got == caaAccount, best == caaForbids:
			best = got
		}
	}
	return best
}

// judgeOne judges one value: "ca.example; name=value; name=value".
func judgeOne(value string, identities []string, method string) verdict {
	parts := strings.Split(value, ";")
	domain := strings.ToLower(strings.TrimSpace(parts[0]))
	if !slices.Contains(identities, domain) {
		return caaForbids
	}
	result := caaAllows
	for _, part := range parts[1:] {
		name, list, _ := strings.Cut(part, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "validationmethods":
			methods := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
			if !slices.Contains(methods, method) {
				return caaMethod
			}
		case "accounturi":
			result = caaAccount
		}
	}
	return result
}
