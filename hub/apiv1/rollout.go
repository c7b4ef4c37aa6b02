// This file holds the wire types of rollouts.

package apiv1

import "time"

// Rollout is a new issue of a certificate on its way to its servers.
type Rollout struct {
	Certificate string `json:"certificate"`
	State       string `json:"state" enum:"running,paused,failed"`
	// Reason says why it does not go on by itself.
	Reason string `json:"reason,omitempty"`
	// Wave is the one under way, from 1; Waves are all of them.
	Wave          int           `json:"wave"`
	Waves         []RolloutWave `json:"waves"`
	LeafSHA256    string        `json:"leaf_sha256"`
	FromLeaf      string        `json:"from_leaf_sha256" doc:"The leaf that servers go back to when the rollout is aborted."`
	From          string        `json:"from" doc:"The commit of main that holds that issue."`
	StartedAt     time.Time     `json:"started_at"`
	WaveStartedAt time.Time     `json:"wave_started_at"`
}

// RolloutWave is one step of a rollout.
type RolloutWave struct {
	// Number is from 1.
	Number  int             `json:"number"`
	Servers []RolloutServer `json:"servers"`
}

// RolloutServer is a server within a wave.
type RolloutServer struct {
	Server string `json:"server"`
	// State is where the server stands: later (its wave has not begun), pending, deployed, failed, or offline.
	State  string `json:"state" enum:"later,pending,deployed,failed,offline"`
	Detail string `json:"detail,omitempty"`
}

// PromoteRequest is the body of POST /rollouts/{certificate}/promote.
type PromoteRequest struct {
	// All lets the new issue go to all servers now instead of to the next wave.
	All bool `json:"all,omitempty"`
}

// ReasonRequest is the body of acts that a person may explain.
type ReasonRequest struct {
	Reason string `json:"reason,omitempty" maxLength:"256"`
}

// FleetRollbackRequest is the body of POST /fleet/rollback.
type FleetRollbackRequest struct {
	// Commit is the commit of main whose certificates return, by 7 to 40 digits.
	Commit string `json:"commit" minLength:"7" maxLength:"40"`
	Reason string `json:"reason,omitempty" maxLength:"256"`
	// Skip leaves certificates as they are that cannot go back; else they refuse the whole.
	Skip bool `json:"skip,omitempty"`
	// DryRun only says what would happen.
	DryRun bool `json:"dry_run,omitempty"`
}

// FleetRollback is what a rollback of the fleet did, or would do.
type FleetRollback struct {
	Commit  string        `json:"commit"`
	Changed []FleetChange `json:"changed"`
	Skipped []FleetChange `json:"skipped"`
}

// FleetChange is what becomes of one certificate.
type FleetChange struct {
	Certificate string `json:"certificate"`
	Detail      string `json:"detail"`
}

// FleetResumed answers POST /fleet/resume.
type FleetResumed struct {
	// Certificates is how many renew again.
	Certificates int `json:"certificates"`
}

// Proposal is an issue that waits for review.
type Proposal struct {
	Certificate string `json:"certificate"`
	// Serial names it among the proposals of the certificate.
	Serial string `json:"serial"`
	// Branch is where it stands in the repository.
	Branch     string    `json:"branch"`
	Commit     string    `json:"commit"`
	Names      []string  `json:"names"`
	Issued     Issued    `json:"issued"`
	InUse      *Issued   `json:"in_use,omitempty" doc:"What the certificate's servers have now."`
	AskedBy    string    `json:"asked_by"`
	Reason     string    `json:"reason,omitempty"`
	ProposedAt time.Time `json:"proposed_at"`
	// AgreedBy are those who agreed, Missing is how many more must.
	AgreedBy []string `json:"agreed_by"`
	Missing  int      `json:"missing"`
	// Servers are those that get it once it is merged.
	Servers []string `json:"servers"`
}

// ReviewRequest is the body of POST /proposals/{certificate}/approve and reject.
type ReviewRequest struct {
	// Serial makes sure that the proposal is the one that was looked at.
	Serial string `json:"serial,omitempty" maxLength:"64"`
	Reason string `json:"reason,omitempty" maxLength:"256"`
}

// ReviewReply answers an approval.
type ReviewReply struct {
	// Merged says that enough people agreed: the issue goes to its servers.
	Merged bool `json:"merged"`
}
