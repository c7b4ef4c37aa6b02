// This file tries credentials of DNS providers.

package vault

import (
	"context"
	"slices"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
)

const (
	// testTimeout bounds a test. Records take their time to show.
	testTimeout = 5 * time.Minute
	// maxTestLines bounds what is kept of what a test says.
	maxTestLines = 200
)

// Test is the newest test of a credential.
type Test struct {
	Domain  string
	BegunAt time.Time
	Running bool
	Lines   []string
	// Err is why it failed, nil while it runs and when it did not.
	Err error
}

// StartTest begins to try a credential of a DNS provider: a random TXT record below domain is added, looked for and
// removed. One test of a credential runs at a time.
func (v *Vault) StartTest(ctx context.Context, name, domain string) (Test, error) {
	c, err := v.Get(ctx, name)
	switch {
	case err != nil:
		return Test{}, err
	case c.Provider == hub.EABProvider:
		return Test{}, &hub.Error{Class: hub.ErrConflict, Message: "this credential binds an account: it is tried when the account is registered"}
	case c.InFile:
		return Test{}, &hub.Error{Class: hub.ErrConflict, Message: "this credential is a file, which does not say for which DNS hook it is: add it with certferry credential add"}
	case v.cfg.Test == nil:
		return Test{}, &hub.Error{Class: hub.ErrConflict, Message: "acme.sh is not set up: run certferry-hub acme install, or set acme_script to a copy"}
	}
	values, err := v.Values(ctx, name)
	if err != nil {
		return Test{}, err
	}
	test := &Test{Domain: domain, BegunAt: v.cfg.Now().UTC(), Running: true}
	v.mu.Lock()
	if have := v.tests[name]; have != nil && have.Running {
		v.mu.Unlock()
		return Test{}, &hub.Error{Class: hub.ErrConflict, Message: "this credential is being tested: wait for the end"}
	}
	v.tests[name] = test
	v.mu.Unlock()
	challenge := issuer.Challenge{Type: issuer.DNS01, Hook: c.Provider, Credential: name, Credentials: values}
	// It outlives the request: a record that was added is removed.
	go v.runTest(context.WithoutCancel(ctx), test, challenge)
	return v.copyOf(test), nil
}

func (v *Vault) runTest(ctx context.Context, test *Test, c issuer.Challenge) {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	err := v.cfg.Test(ctx, c, test.Domain, func(e issuer.Event) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if e.Line != "" && len(test.Lines) < maxTestLines {
			test.Lines = append(test.Lines, e.Line)
		}
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	test.Running, test.Err = false, err
}

// forgetTest forgets what a test found: it was of other values.
func (v *Vault) forgetTest(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if test := v.tests[name]; test != nil && !test.Running {
		delete(v.tests, name)
	}
}

// LastTest shows the newest test of a credential since the hub started.
func (v *Vault) LastTest(name string) (Test, bool) {
	v.mu.Lock()
	test := v.tests[name]
	v.mu.Unlock()
	if test == nil {
		return Test{}, false
	}
	return v.copyOf(test), true
}

func (v *Vault) copyOf(test *Test) Test {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := *test
	c.Lines = slices.Clone(test.Lines)
	return c
}
