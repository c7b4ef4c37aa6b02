// Package hub is the hub's domain: the things it knows beside Git, the classes of its errors and the authority of
// its callers. It does no I/O.
//
// Desired state and issued certificates live in the repository (package gitstore). What is here is what Git
// cannot say: which key a server enrolled with, what agents observed and reported, users, sessions, jobs and the
// audit history. Times are UTC, whole milliseconds.
package hub

import (
	"errors"
	"time"

	"github.com/certferry/certferry/hub/apiv1"
)

// Classes of errors. Everything that a caller can mend is one of these; anything else is internal, and its text
// stays in the log.
var (
	// ErrInvalid: the request itself is at fault; see Faults.
	ErrInvalid = errors.New("invalid")
	// ErrUnauthenticated: no valid credential was given.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrForbidden: the caller may not do this.
	ErrForbidden = errors.New("not allowed")
	// ErrNotFound: the object does not exist, or not for this caller.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the object's present state does not allow it.
	ErrConflict = errors.New("conflict")
	// ErrThrottled: too many attempts; see RetryAfter of a ThrottleError.
	ErrThrottled = errors.New("too many attempts")
)

// Fault is one fault of a request.
type Fault struct {
	// Location is a path such as body.names[0].
	Location string
	// Message never repeats the value.
	Message string
}

// Error is an error whose Message may be shown to the caller.
type Error struct {
	// Class is one of the Err values of this package.
	Class error
	// Message says what is wrong and what to do next.
	Message string
	Faults  []Fault
	// RetryAfter is set with ErrThrottled.
	RetryAfter time.Duration
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the class.
func (e *Error) Unwrap() error { return e.Class }

// ServerState says how far a server is trusted.
type ServerState string

// The states of a server. Only an approved server gets certificates.
const (
	ServerPending  ServerState = "pending"
	ServerApproved ServerState = "approved"
	ServerDisabled ServerState = "disabled"
)

// Server is what the hub knows of a managed machine beside its intent in Git.
type Server struct {
	Name  string
	State ServerState
	// Fingerprint and PublicKey (ASCII-armored) are of the key it enrolled with.
	Fingerprint string
	PublicKey   string
	// CredentialHash is the hex SHA-256 of its API and Git credential.
	CredentialHash string
	Facts          apiv1.Facts
	CreatedAt      time.Time

	// What the last heartbeat said; LastSeenAt is zero before the first.
	LastSeenAt time.Time
	Counter    uint64
	// RegressedAt is when a heartbeat last came with a lower Counter than one before: a machine was cloned or set back.
	RegressedAt time.Time
	Commit      string
	Generation  uint64
	Held        bool
	Status      string
	Message     string
}

// Observation is what an agent reported last of one certificate at one target.
type Observation struct {
	Server      string
	Certificate string
	Target      string
	Commit      string
	Generation  uint64
	State       apiv1.DeploymentState
	Phase       apiv1.DeploymentPhase
	LeafSHA256  string
	Detail      string
	ReportedAt  time.Time
}

// User is a person's account.
type User struct {
	Name         string
	Role         apiv1.Role
	PasswordHash string
	Disabled     bool
	CreatedAt    time.Time
	// SessionsFrom is the earliest time from which access tokens of this user count.
	SessionsFrom time.Time
}

// Session is a login; its refresh token rotates. Tokens are kept as hex SHA-256 only.
type Session struct {
	ID          string
	User        string
	RefreshHash string
	// PreviousHash was rotated out at RotatedAt; its use long after means theft.
	PreviousHash string
	RotatedAt    time.Time
	CreatedAt    time.Time
	ExpiresAt    time.Time
}

// JoinToken lets one server of one name register once.
type JoinToken struct {
	// Hash is the hex SHA-256 of the token.
	Hash        string
	Server      string
	PreApproved bool
	Labels      map[string]string
	CreatedBy   string
	CreatedAt   time.Time
	ExpiresAt   time.Time
	UsedAt      time.Time
}

// Job is the issuing of a certificate.
type Job struct {
	ID          string
	Kind        apiv1.JobKind
	Certificate string
	// Issuer is where the last attempt ordered, the wished one before the first.
	Issuer string
	// Actor asked for it: a user's name, or "hub" when it was due.
	Actor  string
	Reason string
	State  apiv1.JobState
	// Phase is how far the last attempt came, an issuer.Phase.
	Phase      string
	Attempts   int
	NotBefore  time.Time
	Error      string
	ErrorClass string
	// Commit is the commit of main that fulfilled it, written before the branch moves.
	Commit string
	// NewKey makes a new private key whatever the certificate says: somebody else has the old one.
	NewKey    bool
	CreatedAt time.Time
	UpdatedAt time.Time
}

// JobLine is one line of a job's log.
type JobLine struct {
	Seq   int64
	At    time.Time
	Phase string
	Line  string
}

// RenewalPlan is when a CA wants a certificate renewed (RFC 9773), and when the hub means to.
type RenewalPlan struct {
	Certificate string
	// LeafSHA256 is the leaf that it is about: a plan for another one counts for nothing.
	LeafSHA256 string
	Start      time.Time
	End        time.Time
	// RenewAt is a moment in the window, chosen once; zero where the CA says nothing.
	RenewAt        time.Time
	ExplanationURL string
	CheckedAt      time.Time
	NextCheck      time.Time
}

// AuditEvent is one act or denied attempt.
type AuditEvent struct {
	Seq       int64
	At        time.Time
	Actor     string
	Action    string
	Object    string
	Outcome   string
	Address   string
	RequestID string
	Detail    string
	PrevHash  string
	Hash      string
}

// Outcomes of an AuditEvent.
const (
	OutcomeOK     = "ok"
	OutcomeDenied = "denied"
	OutcomeFailed = "failed"
)

// PrincipalKind tells people from agents.
type PrincipalKind string

// The kinds of callers.
const (
	Anonymous PrincipalKind = "anonymous"
	Person    PrincipalKind = "user"
	Agent     PrincipalKind = "agent"
)

// Principal is the authenticated caller of a request.
type Principal struct {
	Kind PrincipalKind
	// Name is the user's or the server's name.
	Name string
	// Role is set for a Person.
	Role apiv1.Role
	// SessionID is set for a Person with a login session.
	SessionID string
}
