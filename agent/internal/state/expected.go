// This file keeps what the hub says that the server's branch holds: the sign of a remote that holds newer states back.

package state

import "time"

// Expected is a newer state that the hub tells of and no remote has shown yet; the zero value where there is none.
type Expected struct {
	// Generation is what the hub says, Seen what the remotes showed since Since.
	Generation uint64    `json:"generation"`
	Seen       uint64    `json:"seen"`
	Since      time.Time `json:"since,omitzero"`
}

const expectedFile = "expected.json"

// Expected returns what was stored last.
func (d *Dir) Expected() (Expected, error) {
	var e Expected
	_, err := d.load(expectedFile, &e)
	return e, err
}

// SaveExpected stores e.
func (d *Dir) SaveExpected(e Expected) error { return d.save(expectedFile, e) }
