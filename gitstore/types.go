// This file holds what goes into the Store's methods and comes out of them.

package gitstore

import (
	"fmt"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// Snapshot is the branch main at one commit, decoded. It is shared between callers: do not change it.
type Snapshot struct {
	// Commit is the commit of main, 40 hex digits.
	Commit string
	// Certificates are those of the files, and those of second key types beside them; Seconds names for each of the
	// latter the one in whose file it stands.
	Certificates map[string]*manifest.Certificate
	Seconds      map[string]string
	Servers      map[string]*manifest.Server
	Issuers      map[string]*manifest.Issuer
	Issued       map[string]*manifest.IssuedCertificate
	// Rollouts are those under way, by certificate.
	Rollouts map[string]*manifest.Rollout
	// Faults are the files that could not be read, sorted by path. They are left out above and hide nothing else.
	Faults []Fault
}

// Fault is a file of main that cannot be used, and why.
type Fault struct {
	Path string
	// Line is where it stands, from 1; 0 where that is not known.
	Line int
	Err  error
}

// String is how compilers put it: path, line, reason.
func (f Fault) String() string {
	if f.Line == 0 {
		return f.Path + ": " + f.Err.Error()
	}
	return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Err)
}

// Actor is who asked for a change: the author of its commit. An empty name stands for the hub itself.
type Actor struct {
	Name  string
	Email string
}

// Trailer is a line "Key: Value" at the end of a commit message.
type Trailer struct {
	Key   string
	Value string
}

// Keys of the trailers that this program writes.
const (
	TrailerCertificate = "Certificate"
	TrailerIssuer      = "Issuer"
	TrailerActor       = "Actor"
	TrailerRequestID   = "Request-Id"
	TrailerAuditHead   = "Audit-Head"
	TrailerHold        = "Hold"
	TrailerGeneration  = "Generation"
)

// Change is one commit on main.
type Change struct {
	// Subject is one line; Body, for the why, may be empty.
	Subject  string
	Body     string
	Actor    Actor
	Trailers []Trailer
	Edits    []gitrepo.Edit
	// Expect is the commit of main that the edits were made on: a file that changed since is a conflict, other
	// files merge. Empty means that whatever is there may be overwritten.
	Expect string
	// BeforeRef, if set, is told the commit when it is safe on disk and main has not moved to it yet. Its error
	// stops the change. It must not change the Store itself.
	BeforeRef func(commit string) error
}

// Issue is a certificate that was issued, to be written to main.
type Issue struct {
	// Certificate is the object's name.
	Certificate string
	// Issued needs Issuer and KeyType, and KeyCustody and KeyServer where the key is on a server; all else is filled in
	// from Bundle.
	Issued manifest.IssuedCertificate
	// Bundle holds leaf, chain and key; no key where the key is on a server.
	Bundle *bundle.Bundle
	// Change gives actor, trailers, expectation and BeforeRef. An empty subject is made up; its Edits come first
	// in the same commit.
	Change Change
}

// ServerState is what one server shall hold.
type ServerState struct {
	Server string
	// Key is the server's own key, from its enrolment.
	Key         *seal.PublicKey
	Deployments []Wanted
	// HoldCommit, if set, is the commit of the server's branch whose content it keeps instead of Deployments.
	HoldCommit string
	// Subject of the commit, if one is made; empty for one that says what changed.
	Subject  string
	Actor    Actor
	Trailers []Trailer
}

// Wanted is one certificate at one target.
type Wanted struct {
	Certificate string
	Deployer    string
	Target      string
	Bundle      *bundle.Bundle
	// KeyOnServer says that the server has the private key already, and Bundle has none.
	KeyOnServer bool
	// Keep says that the server keeps what it has of the certificate, whatever that is, instead of Bundle: a rollout
	// has not reached it yet.
	Keep bool
	// StepBack says that a leaf that expires before the present one is meant. It stays set for as long as the leaf
	// stays, so that a server that was away meets it too.
	StepBack bool
}

// Published is what became of one ServerState.
type Published struct {
	Server     string
	Commit     string
	Generation uint64
	// Changed tells whether a new commit was made.
	Changed bool
	// Err says why this server was left as it was; the others of the batch go on.
	Err error
}

// Tip is the newest commit of a server's branch.
type Tip struct {
	Commit   string
	Manifest *manifest.Manifest
}

// ServerCommit is one commit of a server's branch with what it told the server.
type ServerCommit struct {
	*gitrepo.Commit
	Manifest *manifest.Manifest
}
