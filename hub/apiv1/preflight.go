// This file holds the wire types of preflights: what can be checked before a CA is asked.

package apiv1

// FindingState says how a check ended. A warning does not keep an order back, a failure does.
type FindingState string

// The states of findings.
const (
	FindingOK      FindingState = "ok"
	FindingWarning FindingState = "warning"
	FindingFailed  FindingState = "failed"
	FindingSkipped FindingState = "skipped"
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check" enum:"names,challenge,address,caa,dns,http,credential,ledger,clock,disk,acme.sh"`
	// Object is what was checked, such as a DNS name; absent for the order as a whole.
	Object string       `json:"object,omitempty"`
	State  FindingState `json:"state" enum:"ok,warning,failed,skipped"`
	Detail string       `json:"detail"`
	// Next says what helps; absent where nothing needs help.
	Next string `json:"next,omitempty"`
	// ErrorClass is that of the error with which an order would end; absent unless it failed.
	ErrorClass string `json:"error_class,omitempty"`
}

// PreflightReport is the answer of POST /certificates/{id}/preflight and POST /preflight.
type PreflightReport struct {
	// Failed says that an order would fail.
	Failed   bool      `json:"failed"`
	Issuer   string    `json:"issuer"`
	Findings []Finding `json:"findings" doc:"The order as a whole first, then by name."`
}
