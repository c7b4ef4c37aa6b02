// Package agent is the agent's domain: what it is asked to deploy, the contract of the deployers that know one
// kind of server software each, and the outcome. It does no I/O.
package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
)

// Phase is a step of the deployment transaction. The values are those of the wire (hub/apiv1).
type Phase string

// The phases, in order.
const (
	PhaseVerify   Phase = "verify"
	PhaseBaseline Phase = "baseline"
	PhaseStage    Phase = "stage"
	PhaseTest     Phase = "test"
	PhaseSwap     Phase = "swap"
	PhaseReload   Phase = "reload"
	PhaseProbe    Phase = "probe"
	PhaseDone     Phase = "done"
)

// State is the outcome of a deployment. The values are those of the wire (hub/apiv1).
type State string

// The outcomes.
const (
	// Deployed: a TLS client sees the new leaf, or nothing had to change.
	Deployed State = "deployed"
	// RolledBack: a step failed, and the previous files are back and served.
	RolledBack State = "rolled_back"
	// Refused: a check failed before anything was touched.
	Refused State = "refused"
	// Failed: a step failed and the roll back could not be proven; someone must look.
	Failed State = "failed"
)

// ErrNotAllowed says that the server's own policy does not allow it.
var ErrNotAllowed = errors.New("not allowed by this server's policy")

// ErrNotRunning says that the server software of a target does not run, so that nothing can be tested or
// reloaded. The agent never starts it.
var ErrNotRunning = errors.New("the server is not running")

// ErrAmbiguous says that more than one running server fits what the policy says of a target.
var ErrAmbiguous = errors.New("which of several servers is meant is not clear")

// Deployment is one certificate to put at one target; it comes from a verified manifest.
type Deployment struct {
	Certificate string
	Deployer    string
	Target      string
	Names       []string
	Bundle      *bundle.Bundle
	// KeyOnServer says that the private key was made here: Bundle comes without it, and this server's own is put there.
	KeyOnServer bool
	// StepBack says that an earlier expiry than the one served is meant.
	StepBack bool
}

// Outcome is what became of a Deployment.
type Outcome struct {
	Certificate string
	Target      string
	State       State
	// Phase is the last step taken, the failing one where State is not Deployed.
	Phase Phase
	// LeafSHA256 is the leaf that the probe saw last, lower-case hex, or empty; for a target that the policy does not let
	// be probed, the leaf that was put there.
	LeafSHA256 string
	// Detail is the sentence for a person, the tail of the failing step's output included; no secret.
	Detail   string
	Duration time.Duration
}

// Target is a place on this server as the administrator's policy defines it.
type Target struct {
	Name     string
	Deployer string
	// Certificate (leaf and chain, PEM), Key and the other files are absolute paths; those that are empty are not written.
	Certificate string
	Key         string
	// Chain is the chain (PEM) in a file of its own; Certificate then holds the leaf alone.
	Chain string
	// Combined is leaf, chain and key in one file (PEM).
	Combined string
	Keystore Keystore
	// Owner, Group and Mode are those of files with the key; empty or 0 keeps what is there, root and 0600 for a new file.
	Owner string
	Group string
	Mode  fs.FileMode
	// Names are the DNS names, wildcards included, that may be deployed here; empty allows all.
	Names []string
	// Probe says where a TLS client must see the new leaf.
	Probe Probe
	// Test and Reload are argument lists of absolute programs, for the deployer "files".
	Test   []string
	Reload []string
	// Instance tells which of several running servers is meant.
	Instance Selector
}

// Probe is where and how a served certificate is looked at.
type Probe struct {
	// Addresses are host:port pairs; empty means that the target cannot be probed, which the policy must say.
	Addresses []string
	// ServerNames are sent as SNI; empty means the certificate's names, wildcards made concrete.
	ServerNames []string
	// Timeout bounds the wait for the new leaf after a reload; 0 is 15 seconds.
	Timeout time.Duration
}

// Selector names one running server among several of the same software; empty values fit any. The paths are absolute.
type Selector struct {
	Binary  string
	Config  string
	Prefix  string
	PIDFile string
	// Socket is the administration socket of software that has one.
	Socket string
}

// Deployer knows one kind of server software. It never writes a file: package deploy alone stages, swaps and
// rolls back, so that atomicity is proven once.
type Deployer interface {
	// Files says which bytes belong in which file for b at t, the order in which they are renamed into place.
	Files(t Target, b *bundle.Bundle) ([]File, error)
	// Test asks the software whether its configuration is good as it now stands on disk. It changes nothing. The
	// error wraps ErrNotRunning if there is no running server to ask.
	Test(ctx context.Context, t Target) error
	// Reload makes the software read its files again and returns when it did, as far as the software lets that be
	// known; the probe proves the rest.
	Reload(ctx context.Context, t Target) error
}

// StepError is a failing step; Output is the tail of what the program said.
type StepError struct {
	Phase  Phase
	Output string
	Err    error
}

// Error implements error.
func (e *StepError) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("%s: %v", e.Phase, e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", e.Phase, e.Err, e.Output)
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Prober looks at what is served: the leaf that a TLS client gets from address for serverName.
type Prober interface {
	Probe(ctx context.Context, address, serverName string) (tls.ConnectionState, error)
}
