// This file says what the hub tells people about without being asked.

package hub

import "time"

// AlertKind says what an alert is about; together with the object it identifies the alert.
type AlertKind string

// The kinds of alerts.
const (
	// AlertGitRemote: a remote cannot be brought up to date. The object is the remote.
	AlertGitRemote AlertKind = "git_remote"
	// AlertHistoryRewritten: somebody replaced history on a remote. The object is the remote.
	AlertHistoryRewritten AlertKind = "history_rewritten"
	// AlertIntentRefused: what somebody pushed was refused. The object is the remote, or the person.
	AlertIntentRefused AlertKind = "intent_refused"
	// AlertIntentUnreadable: a file of main cannot be used. The object is its path.
	AlertIntentUnreadable AlertKind = "intent_unreadable"
	// AlertIssueFailed: orders of a certificate fail, and waiting helps little. The object is the certificate.
	AlertIssueFailed AlertKind = "issue_failed"
	// AlertRolloutStopped: a rollout does not go on by itself. The object is the certificate.
	AlertRolloutStopped AlertKind = "rollout_stopped"
	// AlertProposalWaiting: a renewal waits for review. The object is the certificate.
	AlertProposalWaiting AlertKind = "proposal_waiting"
	// AlertHoldExpiring: what a held server serves ends soon. The object is the server.
	AlertHoldExpiring AlertKind = "hold_expiring"
	// AlertStateRefused: an agent refused what its remote sent. The object is the server.
	AlertStateRefused AlertKind = "state_refused"
	// AlertFreezeSuspected: an agent polls, and does not get what its branch holds. The object is the server.
	AlertFreezeSuspected AlertKind = "freeze_suspected"
	// AlertStateUnknown: an agent took a state that this hub never made. The object is the server.
	AlertStateUnknown AlertKind = "state_unknown"
	// AlertDeploymentFailed: a deployment failed or was undone. The object is the server.
	AlertDeploymentFailed AlertKind = "deployment_failed"
)

// AlertLevel says how soon somebody should look.
type AlertLevel string

// The levels, the lowest first.
const (
	AlertInfo     AlertLevel = "info"
	AlertWarning  AlertLevel = "warning"
	AlertCritical AlertLevel = "critical"
)

// AlertState is where an alert is in its life.
type AlertState string

// The states of an alert.
const (
	AlertOpen     AlertState = "open"
	AlertResolved AlertState = "resolved"
)

// Alert is something that a person should know of. There is one open alert of a kind for an object: raising it again
// counts up.
type Alert struct {
	// ID is given by the database; newer alerts have greater ones.
	ID   int64
	Kind AlertKind
	// Object is the name of what it is about.
	Object string
	Level  AlertLevel
	// Message is a sentence for people that says what to do; never a secret.
	Message string
	State   AlertState
	// Count is how often it was raised.
	Count   int64
	FirstAt time.Time
	LastAt  time.Time
	// ResolvedAt is zero while it is open.
	ResolvedAt time.Time
}
