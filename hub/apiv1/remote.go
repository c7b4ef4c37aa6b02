// This file holds the wire types of Git remotes.

package apiv1

import "time"

// Remote is how a copy of the repository on another Git host is doing.
type Remote struct {
	Name string `json:"name"`
	// URL never holds a credential.
	URL string `json:"url"`
	// Intent says that people's commits to its main count.
	Intent bool   `json:"intent"`
	State  string `json:"state" enum:"starting,current,failing,unrelated" doc:"starting: not looked at yet. current: holds what the hub holds. failing: the last try did not succeed. unrelated: holds the history of something else and is left alone."`
	// Behind is how many branches differ from the hub's, as far as is known.
	Behind int        `json:"behind"`
	LastOK *time.Time `json:"last_ok,omitempty"`
	// LastError says what is wrong and what to do.
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	Failures    int        `json:"failures,omitempty"`
	NextTry     *time.Time `json:"next_try,omitempty"`
}
