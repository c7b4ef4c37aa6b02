// This file reads the wish for a certificate from flags.

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
)

func createCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "wish for a certificate", ArgsUsage: "NAME",
		Description: "Example: certferry cert create --dns www.example.com --issuer private-ca --to web-1:nginx:site www",
		Flags: append(waitFlags(),
			&cli.StringSliceFlag{Name: "dns", Usage: "DNS `NAME`; repeat it for more (default: the certificate's own name)"},
			&cli.StringFlag{Name: "issuer", Required: true, Usage: "`ISSUER` that signs it"},
			&cli.StringFlag{Name: "key-type", Usage: "ecdsa-p256 (default), ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096"},
			&cli.StringFlag{Name: "second-key-type", Usage: "makes a second certificate with a key of this type, such as rsa-2048; each deployment then names its target"},
			&cli.StringFlag{Name: "key-custody", Usage: "hub (default), or server: the private key is made there and never leaves it"},
			&cli.StringFlag{Name: "fallback-issuer", Usage: "`ISSUER` that takes over when the first one is down"},
			&cli.StringFlag{Name: "profile", Usage: "ACME profile to ask for"},
			&cli.StringFlag{Name: "preferred-chain", Usage: "common name of the root that the chain should lead to"},
			&cli.StringSliceFlag{Name: "to", Usage: "`PLACE` that gets it, SERVER:DEPLOYER:TARGET[:SECOND-TARGET]; repeat it for more"},
			&cli.StringSliceFlag{Name: "to-labels", Usage: "`PLACES` that get it, SELECTOR:DEPLOYER:TARGET[:SECOND-TARGET], such as role=edge:nginx:site"},
			&cli.StringFlag{Name: "challenge", Usage: "http-01, dns-01 or tls-alpn-01, for an ACME issuer"},
			&cli.StringFlag{Name: "method", Usage: "webroot, standalone or stateless, for http-01"},
			&cli.StringFlag{Name: "webroot", Usage: "folder that port 80 serves, for the method webroot"},
			&cli.StringFlag{Name: "hook", Usage: "acme.sh's DNS hook such as dns_cf, for dns-01"},
			&cli.StringFlag{Name: "credential", Usage: "name of the hub's credential for the hook"},
			&cli.StringFlag{Name: "alias", Usage: "`DOMAIN` whose _acme-challenge label takes the TXT record, for dns-01"},
			&cli.StringFlag{Name: "domain-alias", Usage: "`NAME` that takes the TXT record as it stands, for dns-01"},
			&cli.StringSliceFlag{Name: "challenge-for", Usage: "`CHALLENGE` of some of the names, \"NAME[,NAME] TYPE [KEY=VALUE]\", such as \"*.a.test dns-01 hook=dns_cf credential=cf\""},
			&cli.IntFlag{Name: "days-before-expiry", DefaultText: "15", Usage: "`DAYS` before its end at which a renewal begins at the latest; not used where that is half of the lifetime or more"},
			&cli.BoolFlag{Name: "keep-key", Usage: "keep the private key at renewals"},
			&cli.StringFlag{Name: "review", Usage: "who must agree to each issue: none, required or two-person"},
			&cli.StringSliceFlag{Name: "wave", Usage: "`SIZE` of a wave of a rollout, such as 1 or 10%; repeat it for more"},
		),
		Action: createCertificate,
	}
}

func createCertificate(c *cli.Context) error {
	name, err := argument(c, "certificate name")
	if err != nil {
		return err
	}
	spec := apiv1.CertificateSpec{
		Name: name, Names: c.StringSlice("dns"), Issuer: c.String("issuer"), KeyType: c.String("key-type"),
		SecondKeyType: c.String("second-key-type"), KeyCustody: c.String("key-custody"), FallbackIssuer: c.String("fallback-issuer"),
		Profile: c.String("profile"), PreferredChain: c.String("preferred-chain"),
		DaysBeforeExpiry: c.Int("days-before-expiry"), KeepKey: c.Bool("keep-key"),
		Review: c.String("review"), Waves: c.StringSlice("wave"),
	}
	if len(spec.Names) == 0 {
		spec.Names = []string{name}
	}
	if c.IsSet("challenge") {
		spec.Challenge = &apiv1.Challenge{
			Type: c.String("challenge"), Method: c.String("method"), Webroot: c.String("webroot"),
			Hook: c.String("hook"), Credential: c.String("credential"),
			Alias: c.String("alias"), DomainAlias: c.String("domain-alias"),
		}
	}
	if spec.Challenges, err = namedChallenges(c.StringSlice("challenge-for")); err != nil {
		return err
	}
	if spec.Deployments, err = placements(c.StringSlice("to"), c.StringSlice("to-labels")); err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	x, err := hub.CreateCertificate(c.Context, spec)
	if err != nil {
		return fmt.Errorf("create certificate %s: %w", name, err)
	}
	if c.Bool("wait") {
		if x, err = waitForCertificate(c, hub, name, ""); err != nil {
			return err
		}
	}
	return render(c, x, func(w io.Writer) { printCertificate(w, x, nil) })
}

// namedChallenges reads "NAME[,NAME] TYPE [KEY=VALUE]".
func namedChallenges(texts []string) ([]apiv1.NamedChallenge, error) {
	var all []apiv1.NamedChallenge
	for _, text := range texts {
		words := strings.Fields(text)
		if len(words) < 2 {
			return nil, usageError{fmt.Errorf("read challenge %q: it reads NAME[,NAME] TYPE [KEY=VALUE]", text)}
		}
		named := apiv1.NamedChallenge{Names: strings.Split(words[0], ","), Challenge: apiv1.Challenge{Type: words[1]}}
		for _, word := range words[2:] {
			key, value, _ := strings.Cut(word, "=")
			to, known := map[string]*string{
				"method": &named.Method, "webroot": &named.Webroot, "hook": &named.Hook, "credential": &named.Credential,
				"alias": &named.Alias, "domain-alias": &named.DomainAlias,
			}[key]
			if !known || value == "" {
				return nil, usageError{fmt.Errorf("read challenge %q: the keys are method, webroot, hook, credential, alias and domain-alias", text)}
			}
			*to = value
		}
		all = append(all, named)
	}
	return all, nil
}

// placements reads SERVER:DEPLOYER:TARGET[:SECOND]; a selector may hold colons nowhere, so they are the borders.
func placements(servers, selectors []string) ([]apiv1.Placement, error) {
	var all []apiv1.Placement
	split := func(text string) (who string, p apiv1.Placement, err error) {
		parts := strings.Split(text, ":")
		if len(parts) < 3 || len(parts) > 4 || slices.Contains(parts, "") {
			return "", p, usageError{fmt.Errorf("read deployment %q: it reads SERVER:DEPLOYER:TARGET, such as web-1:nginx:site", text)}
		}
		p.Deployer, p.Target = parts[1], parts[2]
		if len(parts) == 4 {
			p.SecondTarget = parts[3]
		}
		return parts[0], p, nil
	}
	for _, text := range servers {
		server, p, err := split(text)
		if err != nil {
			return nil, err
		}
		p.Server = server
		all = append(all, p)
	}
	for _, text := range selectors {
		selector, p, err := split(text)
		if err != nil {
			return nil, err
		}
		p.Selector = selector
		all = append(all, p)
	}
	return all, nil
}
