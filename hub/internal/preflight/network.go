// This file checks what stands in DNS and at the addresses of a name.

package preflight

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
)

// caa checks whether the CA may sign for a name.
func (k *check) caa(ctx context.Context, name string, c *manifest.Challenge) []hub.Finding {
	host, wildcard := strings.CutPrefix(name, "*.")
	at, records, broken, err := k.cfg.DNS.caa(ctx, host)
	switch {
	case err != nil:
		return []hub.Finding{unasked(ctx, "caa", name)}
	case broken != "":
		return []hub.Finding{failed("caa", name, issuer.ValidationFailed, "the CAA records of "+broken+" cannot be looked up (DNS server failure): a CA must not sign then",
			"mend the zone's name servers or its DNSSEC")}
	case len(records) == 0:
		return []hub.Finding{ok("caa", name, "no CAA records: every CA may sign")}
	}
	allow := "allow this CA in the CAA records of " + at
	if len(k.ca.Identities) > 0 {
		allow = fmt.Sprintf("add to %s: CAA 0 issue %q", at, k.ca.Identities[0])
	}
	switch judge(records, k.ca.Identities, wildcard, c.Type) {
	case caaForbids:
		return []hub.Finding{failed("caa", name, issuer.Permanent, "the CAA records of "+at+" do not allow this CA", allow+", or choose another issuer")}
	case caaCritical:
		return []hub.Finding{failed("caa", name, issuer.Permanent, "the CAA records of "+at+" hold a critical one that CAs do not know", "remove it, or its critical flag")}
	case caaMethod:
		return []hub.Finding{failed("caa", name, issuer.Permanent, "the CAA records of "+at+" do not allow "+c.Type+" (validationmethods)", "use a challenge that they allow, or add this one")}
	case caaAccount:
		return []hub.Finding{warning("caa", name, "the CAA records of "+at+" allow one account only (accounturi)", "check that it is the account of this issuer")}
	case caaUnknown:
		return []hub.Finding{warning("caa", name, "there are CAA records at "+at+", and the hub does not know by which name this CA goes", "check that they allow it")}
	default:
		return []hub.Finding{ok("caa", name, "the CAA records of "+at+" allow this CA")}
	}
}

// dns checks what dns-01 needs: where the TXT record goes, and the servers there.
func (k *check) dns(ctx context.Context, name string, c *manifest.Challenge) []hub.Finding {
	record := "_acme-challenge." + strings.TrimPrefix(name, "*.")
	target, err := k.cfg.DNS.alias(ctx, record)
	if err != nil {
		return []hub.Finding{unasked(ctx, "dns", record)}
	}
	wish := c.DomainAlias
	if c.Alias != "" {
		wish = "_acme-challenge." + c.Alias
	}
	place := record
	switch {
	case wish != "" && !same(target, wish):
		text := "it is no CNAME to " + wish
		if target != "" {
			text = "it is a CNAME to " + target + " in place of " + wish
		}
		return []hub.Finding{failed("dns", record, issuer.ValidationFailed, text, "add: "+record+". CNAME "+wish+".")}
	case wish != "":
		place = wish
	case target != "":
		return append([]hub.Finding{warning("dns", record, "it is a CNAME to "+target+", and the certificate names no alias",
			"set alias or domain alias, unless the hook "+c.Hook+" writes there by itself")}, k.servers(ctx, record, target)...)
	}
	return k.servers(ctx, record, place)
}

// servers checks the servers of the zone in which the TXT record of a name goes to place.
func (k *check) servers(ctx context.Context, record, place string) []hub.Finding {
	zone, servers, err := k.cfg.DNS.zone(ctx, place)
	switch {
	case err != nil:
		return []hub.Finding{unasked(ctx, "dns", record)}
	case zone == "" || !strings.Contains(zone, ".") && k.ca.Public:
		return []hub.Finding{failed("dns", record, issuer.ValidationFailed, "there is no zone for it in DNS", "register the domain, or mend the name")}
	}
	var faults []string
	for _, server := range servers {
		fault, err := k.cfg.DNS.serves(ctx, server, zone)
		if err != nil || ctx.Err() != nil {
			return []hub.Finding{unasked(ctx, "dns", record)}
		}
		if fault != "" {
			faults = append(faults, server+" "+fault)
		}
	}
	if len(faults) > 0 {
		// The hub's way to port 53 may be shut, so that even all of them are no proof.
		return []hub.Finding{warning("dns", record, "servers of the zone "+zone+": "+strings.Join(faults, ", "), "mend the zone's name servers; the record must be on each of them")}
	}
	return []hub.Finding{ok("dns", record, fmt.Sprintf("goes to the zone %s on %s", zone, strings.Join(servers, ", ")))}
}

// reach checks what http-01 and tls-alpn-01 need: addresses, and who answers there.
func (k *check) reach(ctx context.Context, name string, c *manifest.Challenge) []hub.Finding {
	found, err := k.cfg.DNS.addresses(ctx, name)
	switch {
	case err != nil:
		return []hub.Finding{unasked(ctx, "address", name)}
	case len(found.addresses) == 0 && found.broken:
		return []hub.Finding{failed("address", name, issuer.ValidationFailed, "its addresses cannot be looked up (DNS server failure)", "mend the zone's name servers or its DNSSEC")}
	case len(found.addresses) == 0 && found.missing:
		return []hub.Finding{failed("address", name, issuer.ValidationFailed, "there is no such name in DNS", "add A and AAAA records, or use dns-01")}
	case len(found.addresses) == 0:
		return []hub.Finding{failed("address", name, issuer.ValidationFailed, "the name has no address", "add A and AAAA records, or use dns-01")}
	}
	return append([]hub.Finding{k.addresses(name, found.addresses)}, k.web(ctx, name, c, found.addresses)...)
}

func (k *check) addresses(name string, all []netip.Addr) hub.Finding {
	texts := make([]string, len(all))
	internal := 0
	for i, a := range all {
		texts[i] = a.String()
		if isInternal(a) {
			internal++
		}
	}
	if internal > 0 && k.ca.Public {
		return warning("address", name, "the hub sees addresses that a public CA cannot reach: "+strings.Join(texts, " "),
			"check that the world sees others, or use dns-01")
	}
	return ok("address", name, strings.Join(texts, " "))
}

// web fetches a token from each address, where something answers there before the order.
func (k *check) web(ctx context.Context, name string, c *manifest.Challenge, addresses []netip.Addr) []hub.Finding {
	token := newToken()
	content := token
	switch {
	case c.Type == string(issuer.TLSALPN01):
		return []hub.Finding{skipped("http", name, "acme.sh itself answers during the order", "port 443 of each address must lead to the hub then")}
	case c.Method == "standalone":
		return []hub.Finding{skipped("http", name, "acme.sh itself answers during the order", "port 80 of each address must lead to the hub then")}
	case c.Method == "stateless":
		thumbprint, err := k.cfg.Thumbprint(ctx, k.at)
		if err != nil {
			return []hub.Finding{skipped("http", name, "the thumbprint of the issuer's account is not known yet", "see that the issuer can register its account: the hub's log says why it could not")}
		}
		content = token + "." + thumbprint
	default:
		if found := k.webroot(name, c.Webroot); found != nil {
			return found
		}
		remove, err := putToken(c.Webroot, token, content)
		if err != nil {
			return []hub.Finding{failed("http", name, issuer.Permanent, "no token can be written into the webroot on the hub: "+reason(err), "make the folder, and let the hub's user write there")}
		}
		defer remove()
	}
	found := make([]hub.Finding, 0, len(addresses))
	for _, address := range addresses {
		found = append(found, k.answer(ctx, name, c, address, k.fetch(ctx, name, address, token, content)))
	}
	return found
}

// webroot is what keeps the hub from writing into a folder: an order would not, and neither does a check.
func (k *check) webroot(name, folder string) []hub.Finding {
	if k.cfg.Webroot == nil {
		return nil
	}
	err := k.cfg.Webroot(k.at, folder)
	refused, ok := errors.AsType[*issuer.Error](err)
	switch {
	case err == nil:
		return nil
	case ok && refused.Class == issuer.Permanent:
		return []hub.Finding{failed("http", name, issuer.Permanent, refused.Detail, "name the folder that the web server serves")}
	default:
		return []hub.Finding{skipped("http", name, "no token was put into the webroot, as nothing can be ordered", "mend what acme.sh lacks")}
	}
}

// reason is the cause of a file's error without its path, which the certificate shows already.
func reason(err error) string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error()
}

// answer is the finding of one fetch.
func (k *check) answer(ctx context.Context, name string, c *manifest.Challenge, address netip.Addr, err error) hub.Finding {
	fault, wrong := errors.AsType[*fetchError](err)
	switch {
	case !wrong:
		return ok("http", name, fmt.Sprintf("port 80 of %s answers with the token", address))
	case ctx.Err() != nil:
		return skipped("http", name, fmt.Sprintf("port 80 of %s: not done in time", address), "run the preflight again")
	}
	text := fmt.Sprintf("port 80 of %s %s", address, fault.text)
	next := "serve " + c.Webroot + " of the hub there, or redirect /" + challengePath + "/ to it"
	if c.Method == "stateless" {
		next = "put the snippet with the thumbprint of the issuer's account into the web server's configuration there"
	}
	if fault.ours || isForbidden(address) {
		return warning("http", name, text, "check from outside that it answers")
	}
	return failed("http", name, issuer.ValidationFailed, text, next)
}
