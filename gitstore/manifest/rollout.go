// This file holds what says how a new issue goes out to its servers: waves, and the rollout under way.

package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// KindRollout is the kind of rollouts/<certificate>.yaml.
const KindRollout = "Rollout"

// Review says who must agree before an issued certificate goes to servers.
const (
	ReviewNone      = "none"
	ReviewRequired  = "required"
	ReviewTwoPerson = "two-person"
)

// Wave says how many of its servers have a new issue once the wave is done: a number of them, or a share of all in
// percent. In YAML it is 5 or 10%.
type Wave struct {
	N       int
	Percent bool
}

// ParseWave reads a wave as YAML has it.
func ParseWave(text string) (Wave, error) {
	digits, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || percent && n > 100 || n > 1_000_000 {
		return Wave{}, errors.New("a wave is a number of servers from 1, or a share from 1% to 100%")
	}
	return Wave{N: n, Percent: percent}, nil
}

// String is what ParseWave reads.
func (w Wave) String() string {
	if w.Percent {
		return strconv.Itoa(w.N) + "%"
	}
	return strconv.Itoa(w.N)
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (w *Wave) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := ParseWave(node.Value)
	if node.Kind != yaml.ScalarNode || err != nil {
		return fmt.Errorf("line %d: a wave is a number of servers from 1, or a share from 1%% to 100%%", node.Line)
	}
	*w = parsed
	return nil
}

// MarshalYAML implements yaml.Marshaler.
func (w Wave) MarshalYAML() (any, error) {
	if w.Percent {
		return w.String(), nil
	}
	return w.N, nil
}

// Waves are the steps in which a new issue goes to its servers; the last, to all that are left, need not be named.
type Waves []Wave

// DefaultWaves are one server, a tenth of them, and the rest.
func DefaultWaves() Waves { return Waves{{N: 1}, {N: 10, Percent: true}} }

// Sizes are how many of total servers have the new issue after each wave, growing, the last all of them. Waves that add
// no server are left out, so that there are never more waves than servers.
func (w Waves) Sizes(total int) []int {
	var sizes []int
	last := 0
	for _, wave := range w {
		n := wave.N
		if wave.Percent {
			n = (total*wave.N + 99) / 100
		}
		if n = min(n, total); n > last {
			sizes, last = append(sizes, n), n
		}
	}
	if last < total {
		sizes = append(sizes, total)
	}
	return sizes
}

func (w Waves) validate() error {
	if len(w) > 20 {
		return errors.New("must be at most 20")
	}
	for i, wave := range w {
		if _, err := ParseWave(wave.String()); err != nil {
			return err
		}
		if i > 0 && wave.Percent == w[i-1].Percent && wave.N <= w[i-1].N {
			return errors.New("each wave must be larger than the one before")
		}
	}
	return nil
}

// RolloutState says whether a rollout goes on by itself.
type RolloutState string

// The states of a rollout. One that is complete or was aborted has no document any more: the commit that removed it
// tells.
const (
	RolloutRunning RolloutState = "running"
	// RolloutPaused waits for a person, who may have paused it, or whose look is needed.
	RolloutPaused RolloutState = "paused"
	// RolloutFailed stopped because a server could not deploy the new issue.
	RolloutFailed RolloutState = "failed"
)

// Rollout is rollouts/<certificate>.yaml: a new issue on its way to the servers of a certificate. The hub writes it;
// which server is in which wave is worked out, never listed.
type Rollout struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	// Name is the certificate's.
	Name string `yaml:"name"`
	// From is the commit of main that holds the issue which servers go back to if the rollout is aborted.
	From string `yaml:"from"`
	// FromLeafSHA256 and LeafSHA256 are the leaves of that issue and of the new one.
	FromLeafSHA256 string `yaml:"fromLeafSha256"`
	LeafSHA256     string `yaml:"leafSha256"`
	Waves          Waves  `yaml:"waves"`
	// Wave is the wave under way, from 1.
	Wave  int          `yaml:"wave"`
	State RolloutState `yaml:"state"`
	// Reason says why it does not go on, for people.
	Reason string `yaml:"reason,omitempty"`
	// StartedAt and WaveStartedAt are when the rollout and its present wave began.
	StartedAt     time.Time `yaml:"startedAt"`
	WaveStartedAt time.Time `yaml:"waveStartedAt"`
}

// DecodeRollout reads rollouts/<certificate>.yaml.
func DecodeRollout(data []byte) (*Rollout, error) { return decodeYAML[Rollout](data, "rollout") }

// Encode writes the document in its canonical form, after Validate.
func (r *Rollout) Encode() ([]byte, error) { return encodeYAML(r) }

func (r *Rollout) setDefaults() {
	if r.APIVersion == "" && r.Kind == "" {
		r.APIVersion, r.Kind = APIVersion, KindRollout
	}
}

// Validate says everything that is wrong with the document, nil for nothing.
func (r *Rollout) Validate() error {
	f := &faults{kind: "rollout"}
	f.header(r.APIVersion, r.Kind, KindRollout, r.Name)
	if !isHex(r.From, 40) {
		f.addText("from", "must have 40 lower-case hexadecimal digits")
	}
	if !isHex(r.FromLeafSHA256, 64) || !isHex(r.LeafSHA256, 64) {
		f.addText("fromLeafSha256, leafSha256", "must have 64 lower-case hexadecimal digits")
	}
	f.add("waves", r.Waves.validate())
	if r.Wave < 1 || r.Wave > 1_000_000 {
		f.addText("wave", "must be 1 or more")
	}
	switch r.State {
	case RolloutRunning, RolloutPaused, RolloutFailed:
	default:
		f.addText("state", "must be running, paused or failed")
	}
	f.add("reason", validText(r.Reason))
	if !wholeUTC(r.StartedAt) || !wholeUTC(r.WaveStartedAt) || r.WaveStartedAt.Before(r.StartedAt) {
		f.addText("startedAt, waveStartedAt", "must be whole seconds in UTC, the first not after the second")
	}
	return f.join()
}

// StricterReview is the one of two reviews that wants more people; empty is none. A certificate may ask for more than
// the hub does, and never for less.
func StricterReview(a, b string) string {
	order := []string{ReviewTwoPerson, ReviewRequired}
	for _, review := range order {
		if a == review || b == review {
			return review
		}
	}
	return ReviewNone
}

func validReview(review string) error {
	switch review {
	case "", ReviewNone, ReviewRequired, ReviewTwoPerson:
		return nil
	}
	return errors.New("must be none, required or two-person")
}
