// This file says how the hub's copies on other Git hosts are doing.

package hub

import "time"

// RemoteState is how a remote is doing.
type RemoteState string

// The states of a remote.
const (
	// RemoteStarting: it was not looked at yet.
	RemoteStarting RemoteState = "starting"
	// RemoteCurrent: it holds what the hub holds.
	RemoteCurrent RemoteState = "current"
	// RemoteFailing: the last look or push did not succeed; it is tried again.
	RemoteFailing RemoteState = "failing"
	// RemoteUnrelated: it holds the history of something else and is left alone.
	RemoteUnrelated RemoteState = "unrelated"
)

// RemoteStatus is how one remote is doing.
type RemoteStatus struct {
	Name string
	// URL never holds a credential.
	URL string
	// Intent says that people's commits to its main count.
	Intent bool
	State  RemoteState
	// Behind is how many branches differ from the hub's, as far as is known.
	Behind int
	// LastOK is when it held all that the hub held; zero for never since the hub started.
	LastOK time.Time
	// LastError is a sentence for people and LastErrorAt when it was true last; empty after a success.
	LastError   string
	LastErrorAt time.Time
	// Failures is how often in a row it failed, and NextTry when it is tried again.
	Failures int
	NextTry  time.Time
}
