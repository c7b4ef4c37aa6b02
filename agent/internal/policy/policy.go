// Package policy reads the file in which a server's administrator says what the agent may touch and run: the
// targets, their files, and where a served certificate is looked at. No command and no path ever comes from the hub.
package policy

import (
	"errors"
	"io"

	"github.com/certferry/certferry/agent"
)

// Policy is what one server allows.
type Policy struct{ targets map[string]agent.Target }

// Load reads the policy file at path. It refuses a file that somebody other than root or the running user owns
// or may write.
func Load(path string) (*Policy, error) { return nil, errors.New("load policy: not built yet") }

// Decode reads a policy from data.
func Decode(data []byte) (*Policy, error) { return nil, errors.New("decode policy: not built yet") }

// Target returns the target called target if it is one of the deployer called deployer, and an error that wraps
// agent.ErrNotAllowed otherwise.
func (p *Policy) Target(deployer, target string) (agent.Target, error) {
	return agent.Target{}, agent.ErrNotAllowed
}

// Allows says whether a certificate for names may be deployed at t; the error wraps agent.ErrNotAllowed.
func Allows(t agent.Target, names []string) error { return nil }

// Explain writes what p allows, for a person.
func (p *Policy) Explain(w io.Writer) error { return nil }
