package daemon

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/certferry/certferry/agent/internal/challenge"
)

// ChallengeFinding is what an address of this server answers to a challenge.
type ChallengeFinding = challenge.Finding

// CheckChallenges asks this server's own addresses, port 80 of all where none is given, whether its web server answers
// challenges of type http-01 for names. right says that a CA would find what it looks for. It needs no configuration.
func CheckChallenges(ctx context.Context, names, addresses []string, thumbprint string) (found []ChallengeFinding, right bool, err error) {
	if err := challenge.CheckInput(names, thumbprint); err != nil {
		return nil, false, fmt.Errorf("check challenges: %w", err)
	}
	var at []netip.AddrPort
	for _, text := range addresses {
		address, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, false, fmt.Errorf("check challenges: %q is no address with a port, such as 192.0.2.1:80", text)
		}
		at = append(at, address)
	}
	if len(at) == 0 {
		if at, err = challenge.Addresses(80); err != nil {
			return nil, false, err
		}
	}
	found = challenge.Check(ctx, names, at, thumbprint)
	return found, challenge.Right(found), nil
}
