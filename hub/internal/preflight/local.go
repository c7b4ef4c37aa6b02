// This file checks what belongs to the order as a whole, and the hub's own machine.

package preflight

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
)

const (
	// Below minFree bytes an order is not begun: a full disk loses certificates that the CA has counted. Below lowFree
	// people are told.
	minFree = 64 << 20
	lowFree = 512 << 20
	// Beyond maxSkew of the clock people are told; beyond wrongSkew certificates look expired, or not valid yet.
	maxSkew   = 5 * time.Minute
	wrongSkew = time.Hour
)

// names checks the names without asking anybody.
func (k *check) names(context.Context) []hub.Finding {
	var found []hub.Finding
	for _, name := range k.want.Names {
		if err := manifest.ValidDNSName(name); err != nil {
			found = append(found, failed("names", name, issuer.Permanent, err.Error(), "mend the name"))
			continue
		}
		if k.ca.Public {
			found = append(found, k.publicName(name)...)
		}
	}
	if len(found) == 0 {
		found = append(found, ok("names", "", fmt.Sprintf("%d names that the CA can sign for", len(k.want.Names))))
	}
	return found
}

// publicName holds a name against the Public Suffix List.
func (k *check) publicName(name string) []hub.Finding {
	host := strings.TrimPrefix(name, "*.")
	suffix, icann := publicsuffix.PublicSuffix(host)
	switch {
	case !icann && !strings.Contains(suffix, "."):
		return []hub.Finding{failed("names", name, issuer.Permanent, "the name does not end in a public top-level domain: no public CA signs for it",
			"use the private CA for internal names")}
	case icann && suffix == host:
		return []hub.Finding{failed("names", name, issuer.Permanent, "the name is a public suffix, below which everybody can register: no CA signs for it",
			"use a name below it that you registered")}
	}
	return nil
}

// disk checks that there is room.
func (k *check) disk(context.Context) []hub.Finding {
	if k.cfg.Free == nil {
		return nil
	}
	free, err := k.cfg.Free()
	switch text := fmt.Sprintf("%d MiB are free where the hub keeps its data", free>>20); {
	case err != nil:
		return []hub.Finding{warning("disk", "", "could not be checked", "look at the hub's log and its disk")}
	case free < minFree:
		return []hub.Finding{failed("disk", "", issuer.Local, text, "make room on the hub's disk")}
	case free < lowFree:
		return []hub.Finding{warning("disk", "", text, "make room on the hub's disk")}
	default:
		return []hub.Finding{ok("disk", "", text)}
	}
}

// clock holds the hub's clock against the CA's. The answer shows that the CA can be reached as well.
func (k *check) clock(ctx context.Context) []hub.Finding {
	if k.cfg.Time == nil {
		return nil
	}
	there, err := k.cfg.Time(ctx, k.at)
	if err != nil {
		if ctx.Err() != nil {
			return []hub.Finding{skipped("clock", "", "not done in time", "run the preflight again")}
		}
		return []hub.Finding{failed("clock", "", issuer.Retryable, "the CA's directory cannot be fetched",
			"check the hub's way to the internet, and the CA's status page")}
	}
	if there.IsZero() {
		return []hub.Finding{skipped("clock", "", "the CA does not tell the time", "")}
	}
	skew := k.cfg.Now().Sub(there).Round(time.Second)
	switch text := fmt.Sprintf("the hub's clock is %s off the CA's", skew.Abs()); {
	case skew.Abs() > wrongSkew:
		return []hub.Finding{failed("clock", "", issuer.Local, text, "set the clock of the hub's machine, and keep it right by NTP")}
	case skew.Abs() > maxSkew:
		return []hub.Finding{warning("clock", "", text, "set the clock of the hub's machine, and keep it right by NTP")}
	default:
		return []hub.Finding{ok("clock", "", text+"; the CA can be reached")}
	}
}

// program checks what runs the order.
func (k *check) program(context.Context) []hub.Finding {
	if k.cfg.Program == nil {
		return nil
	}
	if err := k.cfg.Program(k.at); err != nil {
		return []hub.Finding{failed("acme.sh", "", issuer.Local, err.Error(), "install it again, or mend the hub's configuration")}
	}
	return []hub.Finding{ok("acme.sh", "", "there, and as it should be")}
}

// credentials checks each credential that the challenges name.
func (k *check) credentials() []func(context.Context) []hub.Finding {
	var tasks []func(context.Context) []hub.Finding
	seen := map[string]bool{}
	for _, name := range k.want.Names {
		c := k.challenge(name)
		if c == nil || c.Credential == "" || seen[c.Credential] {
			continue
		}
		seen[c.Credential] = true
		credential, domain := c.Credential, strings.TrimPrefix(name, "*.")
		tasks = append(tasks, func(ctx context.Context) []hub.Finding {
			if err := k.cfg.Credential(ctx, credential); err != nil {
				return []hub.Finding{failed("credential", credential, issuer.Local, err.Error(),
					"add it with certferry credential add, or name another one")}
			}
			return []hub.Finding{ok("credential", credential,
				"there; certferry credential test --domain "+domain+" "+credential+" tries it with a TXT record")}
		})
	}
	return tasks
}
