// This file is about what can be checked before a CA is asked.

package hub

import (
	"slices"

	"github.com/certferry/certferry/issuer"
)

// FindingState says how a check ended.
type FindingState string

// The states of findings. A warning does not keep an order back, a failure does.
const (
	FindingOK      FindingState = "ok"
	FindingWarning FindingState = "warning"
	FindingFailed  FindingState = "failed"
	// FindingSkipped was not checked; the detail says why.
	FindingSkipped FindingState = "skipped"
)

// Finding is what one check found.
type Finding struct {
	// Check is names, challenge, address, caa, dns, http, credential, ledger, clock, disk or acme.sh.
	Check string
	// Object is what was checked, such as a DNS name; empty for the order as a whole.
	Object string
	State  FindingState
	// Detail is a sentence for people; Next says what helps, empty where nothing needs help.
	Detail string
	Next   string
	// Class is that of the error which an order would end with, for a failure.
	Class issuer.Class
}

// PreflightReport is what all checks found, the order as a whole first, then by name.
type PreflightReport []Finding

// Failed says whether an order would fail.
func (r PreflightReport) Failed() bool { return r.Err() != nil }

// Err is the error that an order would end with, an *issuer.Error; nil where none is foreseen. What never succeeds goes
// before what may succeed later.
func (r PreflightReport) Err() error {
	var first *issuer.Error
	for _, f := range r {
		if f.State != FindingFailed || first != nil && (first.Class == issuer.Permanent || f.Class != issuer.Permanent) {
			continue
		}
		first = &issuer.Error{Class: f.Class, Phase: issuer.PhasePrepare, Name: f.Object, Detail: f.Detail + "; " + f.Next}
	}
	if first == nil {
		return nil
	}
	return first
}

// Count counts the findings of a state.
func (r PreflightReport) Count(state FindingState) int {
	return len(slices.DeleteFunc(slices.Clone(r), func(f Finding) bool { return f.State != state }))
}
