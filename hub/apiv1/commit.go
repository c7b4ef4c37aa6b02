// This file holds the wire types of commits and alerts.

package apiv1

import "time"

// CommitDetail is a commit with what it changed.
type CommitDetail struct {
	Commit
	// Body is what the message says below the subject, without trailers.
	Body      string          `json:"body,omitempty"`
	Committer string          `json:"committer"`
	Parents   []string        `json:"parents"`
	Signature CommitSignature `json:"signature"`
	// Verdict says what became of a commit that somebody pushed; it is absent from the hub's own.
	Verdict *CommitVerdict `json:"verdict,omitempty"`
	Files   []FileDiff     `json:"files"`
	// MoreFiles is how many files are left out of Files.
	MoreFiles int `json:"more_files,omitempty"`
}

// CommitSignature is what a commit's signature is worth.
type CommitSignature struct {
	State       string `json:"state" enum:"hub,none,unknown" doc:"hub: a key of the hub's keyring signed it. none: it is not signed. unknown: its signature is of another key, or does not verify."`
	Fingerprint string `json:"fingerprint,omitempty"`
}

// CommitVerdict is the hub's answer to a commit that somebody pushed.
type CommitVerdict struct {
	Applied bool `json:"applied"`
	// Commit is the commit of main with which the hub took it up; empty where it is on main itself.
	Commit string `json:"commit,omitempty"`
	Reason string `json:"reason,omitempty" doc:"Why it was refused, one fault a line."`
}

// FileDiff is what a commit did to one file.
type FileDiff struct {
	Path string `json:"path"`
	// OldSize and NewSize are in bytes; absent where the file is.
	OldSize *int `json:"old_size,omitempty"`
	NewSize *int `json:"new_size,omitempty"`
	// Diff is empty for what is sealed, signatures, and files that are no text.
	Diff string `json:"diff,omitempty" doc:"Unified diff. JSON is compared as if it were indented."`
}

// Comparison is what changed from one commit to another.
type Comparison struct {
	From      string     `json:"from"`
	To        string     `json:"to"`
	Files     []FileDiff `json:"files"`
	MoreFiles int        `json:"more_files,omitempty"`
}

// Alert is something that a person should know of.
type Alert struct {
	ID     int64  `json:"id"`
	Kind   string `json:"kind"`
	Object string `json:"object"`
	Level  string `json:"level" enum:"info,warning,critical"`
	// Message says what is wrong and what to do.
	Message string `json:"message"`
	State   string `json:"state" enum:"open,resolved"`
	// Count is how often it was raised.
	Count      int64      `json:"count"`
	FirstAt    time.Time  `json:"first_at"`
	LastAt     time.Time  `json:"last_at"`
	ResolvedAt *time.Time `json:"resolved_at,omitempty"`
}
