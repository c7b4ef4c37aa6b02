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
