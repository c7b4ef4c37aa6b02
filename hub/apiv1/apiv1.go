// Package apiv1 holds the wire types of the hub's HTTP API, shared by hub, agent, CLI and console. It imports
// the standard library only and holds no behaviour.
//
// Conventions: keys are snake_case; times are RFC 3339 in UTC; hashes are lower-case hex; fingerprints are 40
// upper-case hex digits; absent optional values are left out. Requests of agents may carry unknown keys (an old
// hub, a new agent); all others are refused with them. Errors are RFC 9457 problem documents.
//
// History:
//
//	1  2026-11  first version
package apiv1

import "time"

// Prefix is the path below which every operation of this version stands.
const Prefix = "/api/v1"

// Problem is an RFC 9457 problem document. It never repeats a submitted value.
type Problem struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says what is wrong and what to do next.
	Detail    string         `json:"detail,omitempty"`
	RequestID string         `json:"request_id,omitempty"`
	Errors    []ProblemFault `json:"errors,omitempty"`
}

// ProblemFault is one fault of a request; Location is a path such as body.names[0].
type ProblemFault struct {
	Location string `json:"location"`
	Message  string `json:"message"`
}

// Role is what a user may do; each role may do what the ones before it may.
type Role string

// The roles, least first.
const (
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
)

// SetupRequest makes the first administrator: POST /auth/setup.
type SetupRequest struct {
	Code     string `json:"code" minLength:"1" maxLength:"128" doc:"One-time setup code that the hub printed."`
	Name     string `json:"name" minLength:"1" maxLength:"64" pattern:"^[a-z0-9][a-z0-9._-]*$" doc:"Account name."`
	Password string `json:"password" minLength:"12" maxLength:"256" doc:"Password."`
}

// SetupState says whether the first administrator still has to be made: GET /auth/setup.
type SetupState struct {
	Required bool `json:"required"`
}

// LoginRequest is the body of POST /auth/login.
type LoginRequest struct {
	Name     string `json:"name" minLength:"1" maxLength:"64"`
	Password string `json:"password" minLength:"1" maxLength:"256"`
}

// Session answers setup, login and refresh. The refresh token travels in a cookie only.
type Session struct {
	AccessToken string    `json:"access_token"`
	ExpiresAt   time.Time `json:"expires_at"`
	User        User      `json:"user"`
}

// User is a person's account.
type User struct {
	Name      string    `json:"name"`
	Role      Role      `json:"role" enum:"viewer,operator,admin"`
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"created_at"`
}

// CreateUserRequest is the body of POST /users.
type CreateUserRequest struct {
	Name     string `json:"name" minLength:"1" maxLength:"64" pattern:"^[a-z0-9][a-z0-9._-]*$"`
	Password string `json:"password" minLength:"12" maxLength:"256"`
	Role     Role   `json:"role" enum:"viewer,operator,admin"`
}

// JoinTokenRequest is the body of POST /join-tokens.
type JoinTokenRequest struct {
	Server string `json:"server" minLength:"1" maxLength:"100" doc:"Name that the server will have."`
	// PreApproved lets the server receive certificates without a person confirming its key.
	PreApproved bool `json:"pre_approved,omitempty"`
	// Labels are given to the server when it registers.
	Labels map[string]string `json:"labels,omitempty"`
}

// JoinToken answers POST /join-tokens; the token is shown this once.
type JoinToken struct {
	Server    string    `json:"server"`
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
	// RootFingerprint is what the agent must pin.
	RootFingerprint string `json:"root_fingerprint"`
	HubURL          string `json:"hub_url"`
	// Command enrols the server; it reads the token from standard input or CERTFERRY_JOIN_TOKEN.
	Command string `json:"command"`
}

// RegisterRequest is the body of POST /servers/register; the join token is its only authority.
type RegisterRequest struct {
	_ struct{} `additionalProperties:"true"` // an old hub takes a new agent's keys

	Token string `json:"token" minLength:"1" maxLength:"128"`
	Name  string `json:"name" minLength:"1" maxLength:"100"`
	// RootFingerprint is the root key that the agent pins; another than the hub's leaves the token unused.
	RootFingerprint string `json:"root_fingerprint,omitempty" maxLength:"64"`
	// PublicKey is the agent's ASCII-armored OpenPGP public key.
	PublicKey string `json:"public_key" minLength:"1" maxLength:"16384"`
	Facts     Facts  `json:"facts"`
}

// Registration answers POST /servers/register.
type Registration struct {
	Server      string `json:"server"`
	Fingerprint string `json:"fingerprint"`
	// Credential authenticates this agent's API and Git requests from now on; it is shown this once.
	Credential string `json:"credential"`
	State      string `json:"state" enum:"pending,approved"`
	RepoID     string `json:"repo_id"`
	// GitURL is the repository's URL, without credentials.
	GitURL string `json:"git_url"`
	// RootKey is the ASCII-armored root public key; the agent checks it against the fingerprint it was given.
	RootKey string `json:"root_key"`
}

// Facts describe a machine; they are shown to people and never decide anything.
type Facts struct {
	_ struct{} `additionalProperties:"true"` // an old hub takes a new agent's keys

	Hostname  string   `json:"hostname,omitempty" maxLength:"256"`
	OS        string   `json:"os,omitempty" maxLength:"256"`
	Kernel    string   `json:"kernel,omitempty" maxLength:"256"`
	Arch      string   `json:"arch,omitempty" maxLength:"32"`
	CPUs      int      `json:"cpus,omitempty" minimum:"0"`
	MemoryMiB int64    `json:"memory_mib,omitempty" minimum:"0"`
	Addresses []string `json:"addresses,omitempty" maxItems:"64"`
	// MachineIDHash and BootID are evidence of a cloned machine, nothing more.
	MachineIDHash string `json:"machine_id_hash,omitempty" maxLength:"64"`
	BootID        string `json:"boot_id,omitempty" maxLength:"64"`
	AgentVersion  string `json:"agent_version,omitempty" maxLength:"64"`
}

// HeartbeatRequest is the body of POST /servers/heartbeat.
type HeartbeatRequest struct {
	_ struct{} `additionalProperties:"true"` // an old hub takes a new agent's keys

	// Counter grows by one with each heartbeat of one agent identity.
	Counter uint64 `json:"counter" maximum:"9007199254740991"`
	// Commit and Generation are the state the agent holds; empty and 0 before the first deployment.
	Commit     string `json:"commit,omitempty" maxLength:"40"`
	Generation uint64 `json:"generation,omitempty" maximum:"9007199254740991"`
	// NewestGeneration is the newest state that the agent verified, deployed or not.
	NewestGeneration uint64 `json:"newest_generation,omitempty" maximum:"9007199254740991"`
	// Held says that the administrator rolled back on the server itself.
	Held bool `json:"held,omitempty"`
	// Status is ok, degraded or failed; Message says why in one line.
	Status  string `json:"status" enum:"ok,degraded,failed"`
	Message string `json:"message,omitempty" maxLength:"1024"`
	Facts   *Facts `json:"facts,omitempty"`
	// Found are the certificates that stand at the targets of the agent's policy; left out where nothing is to be told.
	Found *[]FoundCertificate `json:"found,omitempty" maxItems:"1000"`
	// Wait asks the hub to keep the answer until there is news for this server, for an interval at most.
	Wait bool `json:"wait,omitempty"`
}

// HeartbeatReply answers a heartbeat.
type HeartbeatReply struct {
	State string `json:"state" enum:"pending,approved,disabled"`
	// Commit and Generation are what the server's branch holds now: the agent sees by them that a remote hides
	// newer state.
	Commit          string `json:"commit,omitempty"`
	Generation      uint64 `json:"generation,omitempty"`
	IntervalSeconds int    `json:"interval_seconds"`
	// RotateKey asks the agent to make a new key and to offer it.
	RotateKey bool `json:"rotate_key,omitempty"`
	// CertificateRequests ask for requests of keys that stay on the server.
	CertificateRequests []WantedRequest `json:"certificate_requests,omitempty"`
}

// DeploymentPhase is a step of the agent's deployment transaction.
type DeploymentPhase string

// The phases, in order.
const (
	PhaseVerify   DeploymentPhase = "verify"
	PhaseBaseline DeploymentPhase = "baseline"
	PhaseStage    DeploymentPhase = "stage"
	PhaseTest     DeploymentPhase = "test"
	PhaseSwap     DeploymentPhase = "swap"
	PhaseReload   DeploymentPhase = "reload"
	PhaseProbe    DeploymentPhase = "probe"
	PhaseDone     DeploymentPhase = "done"
)

// DeploymentState is the outcome of a deployment.
type DeploymentState string

// The outcomes. Pending is the hub's word for a deployment that the agent did not report yet.
const (
	DeploymentPending    DeploymentState = "pending"
	DeploymentDeployed   DeploymentState = "deployed"
	DeploymentRolledBack DeploymentState = "rolled_back"
	DeploymentRefused    DeploymentState = "refused"
	DeploymentFailed     DeploymentState = "failed"
)

// ReportRequest is the body of POST /certificates/sync: what became of one commit on one server.
type ReportRequest struct {
	_ struct{} `additionalProperties:"true"` // an old hub takes a new agent's keys

	// ID is chosen by the agent; the same report sent twice counts once.
	ID         string    `json:"id" minLength:"1" maxLength:"64"`
	At         time.Time `json:"at"`
	Commit     string    `json:"commit" maxLength:"40"`
	Generation uint64    `json:"generation" maximum:"9007199254740991"`
	// Cause is poll, rollback (by the server's administrator) or recovery.
	Cause       string             `json:"cause" enum:"poll,rollback,recovery"`
	Deployments []DeploymentReport `json:"deployments" maxItems:"10000"`
	// Error says why the commit as a whole was refused, such as a signature that does not verify.
	Error string `json:"error,omitempty" maxLength:"4096"`
}

// DeploymentReport is the outcome of one certificate at one target.
type DeploymentReport struct {
	_ struct{} `additionalProperties:"true"` // an old hub takes a new agent's keys

	Certificate string          `json:"certificate" maxLength:"100"`
	Target      string          `json:"target" maxLength:"100"`
	State       DeploymentState `json:"state" enum:"deployed,rolled_back,refused,failed"`
	// Phase is the last step taken, the failing one where State is not deployed.
	Phase      DeploymentPhase `json:"phase" enum:"verify,baseline,stage,test,swap,reload,probe,done"`
	LeafSHA256 string          `json:"leaf_sha256,omitempty" maxLength:"64" doc:"Leaf that a TLS client sees after the deployment; where the server's policy has no probe, the one that was put there."`
	// Detail is the sentence for a person, the tail of the failing step's output included.
	Detail         string `json:"detail,omitempty" maxLength:"4096"`
	DurationMillis int64  `json:"duration_ms" minimum:"0"`
}

// Server is a managed machine as people see it.
type Server struct {
	Name        string `json:"name"`
	State       string `json:"state" enum:"pending,approved,disabled"`
	Fingerprint string `json:"fingerprint"`
	// NextFingerprint is that of a new key of the server which waits for approval.
	NextFingerprint string            `json:"next_fingerprint,omitempty"`
	Labels          map[string]string `json:"labels"`
	Hold            *Hold             `json:"hold,omitempty"`
	Facts           Facts             `json:"facts"`
	// Online is false when heartbeats stopped coming.
	Online     bool       `json:"online"`
	LastSeenAt *time.Time `json:"last_seen_at,omitempty"`
	Status     string     `json:"status,omitempty"`
	Message    string     `json:"message,omitempty"`
	// Held says that the server's administrator rolled back on the server itself.
	Held bool `json:"held"`
	// Commit and Generation are what the agent reported, WantCommit and WantGeneration what its branch holds.
	Commit         string       `json:"commit,omitempty"`
	Generation     uint64       `json:"generation"`
	WantCommit     string       `json:"want_commit,omitempty"`
	WantGeneration uint64       `json:"want_generation"`
	Deployments    []Deployment `json:"deployments"`
	CreatedAt      time.Time    `json:"created_at"`
}

// Hold keeps a server at an earlier state.
type Hold struct {
	Commit string    `json:"commit"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by"`
	Since  time.Time `json:"since"`
}

// Deployment is one certificate on one server at one target: what should be there and what was reported.
type Deployment struct {
	Server         string          `json:"server"`
	Certificate    string          `json:"certificate"`
	Deployer       string          `json:"deployer"`
	Target         string          `json:"target"`
	WantLeafSHA256 string          `json:"want_leaf_sha256,omitempty"`
	State          DeploymentState `json:"state" enum:"pending,deployed,rolled_back,refused,failed"`
	Phase          DeploymentPhase `json:"phase,omitempty"`
	LeafSHA256     string          `json:"leaf_sha256,omitempty"`
	Detail         string          `json:"detail,omitempty"`
	Commit         string          `json:"commit,omitempty"`
	ReportedAt     *time.Time      `json:"reported_at,omitempty"`
}

// ApproveRequest is the body of POST /servers/{name}/approve.
type ApproveRequest struct {
	// Fingerprint must be that of the registered key: it proves that a person compared it.
	Fingerprint string `json:"fingerprint" minLength:"40" maxLength:"60"`
}

// RollbackRequest is the body of POST /servers/{name}/rollback and /certificates/{id}/rollback.
type RollbackRequest struct {
	// Commit is the commit to go back to, the one before the present one when empty: of the server's own branch
	// for a server, of main for a certificate.
	Commit string `json:"commit,omitempty" maxLength:"40"`
	Reason string `json:"reason,omitempty" maxLength:"256"`
}

// Commit is one commit of the repository.
type Commit struct {
	Hash        string            `json:"hash"`
	Subject     string            `json:"subject"`
	Author      string            `json:"author"`
	CommittedAt time.Time         `json:"committed_at"`
	Trailers    map[string]string `json:"trailers,omitempty"`
	// Generation is set for commits of a server's branch.
	Generation uint64 `json:"generation,omitempty"`
}

// CertificateState is where a certificate is in its life.
type CertificateState string

// The states of a certificate.
const (
	CertificatePending  CertificateState = "pending"
	CertificateValid    CertificateState = "valid"
	CertificateExpiring CertificateState = "expiring"
	CertificateExpired  CertificateState = "expired"
	CertificateRenewing CertificateState = "renewing"
	CertificateFailed   CertificateState = "failed"
	CertificatePaused   CertificateState = "paused"
	CertificateRevoked  CertificateState = "revoked"
)

// Certificate is a wish for a certificate and what fulfils it.
type Certificate struct {
	CertificateSpec
	State CertificateState `json:"state" enum:"pending,valid,expiring,expired,renewing,failed,revoked,paused"`
	// Paused says that renewals wait for somebody to resume; PausedReason says why.
	Paused       bool         `json:"paused"`
	PausedReason string       `json:"paused_reason,omitempty"`
	Issued       *Issued      `json:"issued,omitempty"`
	RenewAt      *time.Time   `json:"renew_at,omitempty"`
	Placed       []Deployment `json:"placed"`
	Job          *Job         `json:"job,omitempty" doc:"The newest job of this certificate."`
	// Proposal is the serial of an issue that waits for review.
	Proposal string `json:"proposal,omitempty"`
}

// CertificateSpec is the body of POST /certificates and the wish within a Certificate.
type CertificateSpec struct {
	Name           string     `json:"name" minLength:"1" maxLength:"100"`
	Names          []string   `json:"names" minItems:"1" maxItems:"100"`
	KeyType        string     `json:"key_type,omitempty" enum:"ecdsa-p256,ecdsa-p384,rsa-2048,rsa-3072,rsa-4096"`
	SecondKeyType  string     `json:"second_key_type,omitempty" enum:"ecdsa-p256,ecdsa-p384,rsa-2048,rsa-3072,rsa-4096" doc:"Asks for a second certificate of the same names, RSA beside ECDSA or the other way round; each deployment names its second_target."`
	KeyCustody     string     `json:"key_custody,omitempty" enum:"hub,server" doc:"Where private keys are made and kept: by the hub (default), or on the one server that the certificate goes to."`
	Issuer         string     `json:"issuer" minLength:"1" maxLength:"100"`
	FallbackIssuer string     `json:"fallback_issuer,omitempty" maxLength:"100" doc:"Takes over when the issuer is down."`
	Profile        string     `json:"profile,omitempty" maxLength:"64" doc:"ACME profile; empty for what the issuer says."`
	PreferredChain string     `json:"preferred_chain,omitempty" maxLength:"128" doc:"Common name of the root that the chain should lead to; empty for what the issuer says."`
	Challenge      *Challenge `json:"challenge,omitempty"`
	// Challenges are those of some of the names, where Challenge does not suit them.
	Challenges       []NamedChallenge `json:"challenges,omitempty" maxItems:"100"`
	DaysBeforeExpiry int              `json:"days_before_expiry,omitempty" minimum:"0" maximum:"365"`
	KeepKey          bool             `json:"keep_key,omitempty"`
	// Review says who must agree before an issue goes to servers; what the hub is set to is the least.
	Review string `json:"review,omitempty" enum:"none,required,two-person"`
	// Waves are the steps in which a new issue goes to its servers, such as 1, 10% and 50%; the rest need not be named.
	Waves       []string    `json:"waves,omitempty" maxItems:"20"`
	Deployments []Placement `json:"deployments,omitempty" maxItems:"1000"`
}

// Challenge is how control of a certificate's names is proven.
type Challenge struct {
	Type       string `json:"type" enum:"http-01,dns-01,tls-alpn-01"`
	Method     string `json:"method,omitempty" enum:"webroot,standalone,stateless"`
	Webroot    string `json:"webroot,omitempty" maxLength:"1024"`
	Hook       string `json:"hook,omitempty" maxLength:"64"`
	Credential string `json:"credential,omitempty" maxLength:"100"`
	// Alias is a domain whose label _acme-challenge takes the TXT record, DomainAlias a name that takes it as it stands.
	Alias       string `json:"alias,omitempty" maxLength:"253"`
	DomainAlias string `json:"domain_alias,omitempty" maxLength:"253"`
}

// NamedChallenge is the challenge of some of a certificate's names.
type NamedChallenge struct {
	Challenge

	Names []string `json:"names" minItems:"1" maxItems:"100"`
}

// Placement puts a certificate on one server by name or on all that a label selector matches.
type Placement struct {
	Server   string `json:"server,omitempty" maxLength:"100"`
	Selector string `json:"selector,omitempty" maxLength:"1024"`
	Deployer string `json:"deployer" minLength:"1" maxLength:"100"`
	Target   string `json:"target" minLength:"1" maxLength:"100"`
	// SecondTarget is where the certificate of the second key type goes.
	SecondTarget string `json:"second_target,omitempty" maxLength:"100"`
}

// Issued is the certificate that was issued last.
type Issued struct {
	Serial     string    `json:"serial"`
	Issuer     string    `json:"issuer"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	LeafSHA256 string    `json:"leaf_sha256"`
	SPKISHA256 string    `json:"spki_sha256"`
	// KeyServer is the server that made the private key and alone has it; absent where the hub has it.
	KeyServer string `json:"key_server,omitempty"`
}

// RenewRequest is the body of POST /certificates/{id}/renew.
type RenewRequest struct {
	Reason string `json:"reason,omitempty" maxLength:"256"`
	// DryRun orders at the CA's staging, and throws away what it gets.
	DryRun bool `json:"dry_run,omitempty"`
}

// JobState is where a job is.
type JobState string

// The states of a job.
const (
	JobQueued  JobState = "queued"
	JobRunning JobState = "running"
	JobWaiting JobState = "waiting"
	JobFailed  JobState = "failed"
	JobDone    JobState = "done"
	// JobCancelled was stopped by a person, who renews by hand when it should be tried again.
	JobCancelled JobState = "cancelled"
)

// Active says whether the job is not over.
func (s JobState) Active() bool { return s == JobQueued || s == JobRunning || s == JobWaiting }

// JobKind is what a job does.
type JobKind string

// The kinds of jobs. A dry run orders at the CA's staging, and throws away what it gets.
const (
	JobIssue  JobKind = "issue"
	JobDryRun JobKind = "dry_run"
)

// Job is long work: issuing a certificate.
type Job struct {
	ID          string  `json:"id"`
	Kind        JobKind `json:"kind" enum:"issue,dry_run"`
	Certificate string  `json:"certificate"`
	// Issuer is where the last attempt ordered.
	Issuer string   `json:"issuer,omitempty"`
	Actor  string   `json:"actor"`
	Reason string   `json:"reason,omitempty"`
	State  JobState `json:"state" enum:"queued,running,waiting,failed,done,cancelled"`
	// Phase is how far the last attempt came.
	Phase    string `json:"phase,omitempty" enum:"prepare,account,order,authorize,dns,validate,finalize,download,check"`
	Attempts int    `json:"attempts"`
	// RetryAt is when a waiting job is tried again.
	RetryAt *time.Time `json:"retry_at,omitempty"`
	// Error and ErrorClass are of the last attempt that failed, NextStep is what helps.
	Error      string    `json:"error,omitempty"`
	ErrorClass string    `json:"error_class,omitempty"`
	NextStep   string    `json:"next_step,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
}

// AuditEvent is one row of the audit history.
type AuditEvent struct {
	Seq       int64     `json:"seq"`
	At        time.Time `json:"at"`
	Actor     string    `json:"actor"`
	Action    string    `json:"action"`
	Object    string    `json:"object,omitempty"`
	Outcome   string    `json:"outcome" enum:"ok,denied,failed"`
	Address   string    `json:"address,omitempty"`
	RequestID string    `json:"request_id,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Hash      string    `json:"hash"`
}

// Status is the hub at a glance: GET /stats.
type Status struct {
	Version      string                   `json:"version"`
	RepoID       string                   `json:"repo_id"`
	MainCommit   string                   `json:"main_commit"`
	Servers      map[string]int           `json:"servers" doc:"Counts by pending, approved, disabled, online, held."`
	Certificates map[CertificateState]int `json:"certificates"`
	Jobs         map[JobState]int         `json:"jobs"`
	AsOf         time.Time                `json:"as_of"`
}

// List is one page of a listing. Next is the value of the query parameter after for the following page, empty on
// the last one.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}
