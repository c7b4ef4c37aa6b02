// This file says before an order what the CA would refuse of it.

package privateca

import "github.com/certferry/certferry/issuer"

var _ issuer.Checker = (*CA)(nil)

// Check says what Issue would refuse of an order, but for its CSR: names outside of the name constraints. Challenges are
// ignored, as nobody's control is asked about.
func (ca *CA) Check(names []string, _ issuer.Challenge, _ map[string]issuer.Challenge) error {
	if len(names) == 0 {
		return &issuer.Error{Class: issuer.Permanent, Detail: "an order takes at least one name"}
	}
	return ca.permits(names)
}
