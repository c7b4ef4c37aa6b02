package apiv1

import "time"

// JobLine is one line of a job's log: GET /jobs/{id}/log.
type JobLine struct {
	// Seq grows by one within a job.
	Seq   int64     `json:"seq"`
	At    time.Time `json:"at"`
	Phase string    `json:"phase,omitempty"`
	Line  string    `json:"line"`
}

// RenewAllRequest is the body of POST /certificates/renew-all: what to do when a CA has to revoke many certificates.
type RenewAllRequest struct {
	// Issuer or Authority says which: those that the issuer of this name issued, or those whose chain holds a
	// certificate with this common name.
	Issuer    string `json:"issuer,omitempty" maxLength:"100"`
	Authority string `json:"authority,omitempty" maxLength:"256"`
	// SpreadSeconds is the time over which the renewals begin; 0 begins all at once, as fast as the CA's limits allow.
	SpreadSeconds int64 `json:"spread_seconds,omitempty" minimum:"0" maximum:"2592000"`
	// NewKey makes new private keys whatever the certificates say.
	NewKey bool   `json:"new_key,omitempty"`
	Reason string `json:"reason,omitempty" maxLength:"256"`
	// DryRun only lists them.
	DryRun bool `json:"dry_run,omitempty"`
}

// RenewAllReply lists the certificates that are renewed.
type RenewAllReply struct {
	Certificates []string `json:"certificates"`
	// Paused are left out, as their renewal is paused.
	Paused []string `json:"paused"`
}

// PauseRequest is the body of POST /certificates/{id}/pause.
type PauseRequest struct {
	Reason string `json:"reason,omitempty" maxLength:"256"`
}
