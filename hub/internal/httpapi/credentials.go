// Credentials: secrets for DNS providers and CAs. They come in and never go out.

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/vault"
	"github.com/certferry/certferry/issuer"
)

// Credentials keeps secrets.
type Credentials interface {
	Providers() ([]issuer.DNSHook, error)
	List(ctx context.Context) ([]hub.Credential, error)
	Get(ctx context.Context, name string) (hub.Credential, error)
	Put(ctx context.Context, c hub.Credential, values map[string]string, create bool, event hub.AuditEvent) error
	Delete(ctx context.Context, name string, event hub.AuditEvent) error
	CredentialTests
}

// CredentialTests tries secrets.
type CredentialTests interface {
	// StartTest begins to try one with a TXT record below domain, LastTest shows the newest test.
	StartTest(ctx context.Context, name, domain string) (vault.Test, error)
	LastTest(name string) (vault.Test, bool)
}

func (s *server) addCredentials() {
	add(s, operation{
		id: "list-dns-providers", method: http.MethodGet, path: "/dns-providers", tag: "credentials",
		summary: "List what credentials can be for, with the form of each",
	}, s.listProviders)
	add(s, operation{
		id: "list-credentials", method: http.MethodGet, path: "/credentials", tag: "credentials", summary: "List credentials, without values",
	}, s.listCredentials)
	add(s, operation{
		id: "create-credential", method: http.MethodPost, path: "/credentials", tag: "credentials", summary: "Keep a credential", status: http.StatusCreated,
	}, s.createCredential)
	add(s, operation{
		id: "get-credential", method: http.MethodGet, path: "/credentials/{id}", tag: "credentials", summary: "Show a credential, without values",
	}, s.getCredential)
	add(s, operation{
		id: "replace-credential", method: http.MethodPut, path: "/credentials/{id}", tag: "credentials", summary: "Replace the values of a credential",
	}, s.replaceCredential)
	add(s, operation{
		id: "delete-credential", method: http.MethodDelete, path: "/credentials/{id}", tag: "credentials",
		summary: "Forget a credential that nothing uses", status: http.StatusNoContent,
	}, s.deleteCredential)
	add(s, operation{
		id: "test-credential", method: http.MethodPost, path: "/credentials/{id}/test", tag: "credentials",
		summary: "Begin to add a random TXT record, look for it and remove it", status: http.StatusAccepted,
	}, s.testCredential)
	add(s, operation{
		id: "get-credential-test", method: http.MethodGet, path: "/credentials/{id}/test", tag: "credentials",
		summary: "Show how the newest test of a credential goes",
	}, s.credentialTest)
}

func (s *server) listProviders(ctx context.Context, _ *call, in *searchInput) (*listOutput[apiv1.DNSProvider], error) {
	all, err := s.cfg.Credentials.Providers()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	byName := map[string]*issuer.DNSHook{}
	for i := range all {
		names[i], byName[all[i].Hook] = all[i].Hook, &all[i]
	}
	slices.Sort(names)
	providers := source[string]{
		fetch: sorted(names), key: func(name string) string { return name },
		keep: holding(in.Query, func(name string) []string { return []string{name, byName[name].Title} }),
	}
	return list(ctx, providers, in.PageInput, func(name string) (apiv1.DNSProvider, error) {
		p := byName[name]
		return apiv1.DNSProvider{
			Hook: p.Hook, Title: p.Title, Hint: p.Hint, Site: p.Site, Docs: p.Docs, Options: viewOptions(p.Options), Alternative: viewOptions(p.Alternative),
		}, nil
	})
}

func viewOptions(options []issuer.DNSOption) []apiv1.ProviderOption {
	all := make([]apiv1.ProviderOption, 0, len(options))
	for _, o := range options {
		all = append(all, apiv1.ProviderOption(o))
	}
	return all
}

func (s *server) listCredentials(ctx context.Context, _ *call, in *searchInput) (*listOutput[apiv1.Credential], error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	all, err := s.cfg.Credentials.List(ctx)
	if err != nil {
		return nil, err
	}
	names, byName := make([]string, len(all)), map[string]hub.Credential{}
	for i, c := range all {
		names[i], byName[c.Name] = c.Name, c
	}
	credentials := source[string]{
		fetch: sorted(names), key: func(name string) string { return name },
		keep: holding(in.Query, func(name string) []string { return []string{name, byName[name].Provider} }),
	}
	return list(ctx, credentials, in.PageInput, func(name string) (apiv1.Credential, error) {
		return viewCredential(snap, byName[name]), nil
	})
}

func viewCredential(snap *gitstore.Snapshot, c hub.Credential) apiv1.Credential {
	return apiv1.Credential{
		Name: c.Name, Provider: c.Provider, Variables: append([]string{}, c.Variables...), InFile: c.InFile, UsedBy: usersOf(snap, c.Name),
		CreatedBy: c.CreatedBy, CreatedAt: stamp(c.CreatedAt), UpdatedAt: stamp(c.UpdatedAt),
	}
}

// usersOf are the certificates and issuers that name a credential.
func usersOf(snap *gitstore.Snapshot, credential string) []string {
	used := []string{}
	for name, c := range snap.Certificates {
		all := slices.Clone(c.Challenges)
		if c.Challenge != nil {
			all = append(all, manifest.NamedChallenge{Challenge: *c.Challenge})
		}
		if slices.ContainsFunc(all, func(n manifest.NamedChallenge) bool { return n.Credential == credential }) {
			used = append(used, "certificate "+name)
		}
	}
	for name, i := range snap.Issuers {
		if i.ACME != nil && i.ACME.EABCredential == credential {
			used = append(used, "issuer "+name)
		}
	}
	slices.Sort(used)
	return used
}

func (s *server) getCredential(ctx context.Context, _ *call, in *IDInput) (*output[apiv1.Credential], error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	c, err := s.cfg.Credentials.Get(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.Credential]{Body: viewCredential(snap, c)}, nil
}

func (s *server) createCredential(ctx context.Context, c *call, in *input[apiv1.CredentialRequest]) (*createdOutput[apiv1.Credential], error) {
	event := s.event(c, in.Body.Name, hub.OutcomeOK, "for "+in.Body.Provider)
	wish := hub.Credential{Name: in.Body.Name, Provider: in.Body.Provider, CreatedBy: c.principal.Name}
	if err := s.cfg.Credentials.Put(ctx, wish, in.Body.Values, true, event); err != nil {
		return nil, err
	}
	out, err := s.getCredential(ctx, c, &IDInput{in.Body.Name})
	if err != nil {
		return nil, err
	}
	return &createdOutput[apiv1.Credential]{Location: apiv1.Prefix + "/credentials/" + in.Body.Name, Body: out.Body}, nil
}

type idBodyInput[T any] struct {
	IDInput

	Body T
}

func (s *server) replaceCredential(ctx context.Context, c *call, in *idBodyInput[apiv1.CredentialRequest]) (*output[apiv1.Credential], error) {
	if in.Body.Name != in.ID {
		return nil, invalid("body.name", "must be the name in the address: a credential keeps its name")
	}
	event := s.event(c, in.ID, hub.OutcomeOK, "for "+in.Body.Provider)
	if err := s.cfg.Credentials.Put(ctx, hub.Credential{Name: in.ID, Provider: in.Body.Provider}, in.Body.Values, false, event); err != nil {
		return nil, err
	}
	return s.getCredential(ctx, c, &in.IDInput)
}

func (s *server) deleteCredential(ctx context.Context, c *call, in *IDInput) (*none, error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	if used := usersOf(snap, in.ID); len(used) > 0 {
		return nil, &hub.Error{Class: hub.ErrConflict, Message: "this credential is used by " + used[0] + ": change that first"}
	}
	return nil, s.cfg.Credentials.Delete(ctx, in.ID, s.event(c, in.ID, hub.OutcomeOK, ""))
}

func (s *server) testCredential(ctx context.Context, c *call, in *idBodyInput[apiv1.CredentialTest]) (*output[apiv1.CredentialTestResult], error) {
	if _, err := s.cfg.Credentials.Get(ctx, in.ID); err != nil {
		return nil, err
	}
	// It changes a zone for a moment: that is an act.
	if err := s.cfg.Data.Audit(ctx, s.event(c, in.ID, hub.OutcomeOK, "below "+oneLine(in.Body.Domain))); err != nil {
		return nil, err
	}
	test, err := s.cfg.Credentials.StartTest(ctx, in.ID, in.Body.Domain)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.CredentialTestResult]{Body: viewTest(test)}, nil
}

func (s *server) credentialTest(_ context.Context, _ *call, in *IDInput) (*output[apiv1.CredentialTestResult], error) {
	test, ok := s.cfg.Credentials.LastTest(in.ID)
	if !ok {
		return nil, &hub.Error{Class: hub.ErrNotFound, Message: "this credential was not tested since the hub started"}
	}
	return &output[apiv1.CredentialTestResult]{Body: viewTest(test)}, nil
}

func viewTest(t vault.Test) apiv1.CredentialTestResult {
	out := apiv1.CredentialTestResult{Domain: t.Domain, BegunAt: t.BegunAt, Running: t.Running, Lines: []string{}}
	for _, line := range t.Lines {
		out.Lines = append(out.Lines, oneLine(line))
	}
	failed := new(issuer.Error)
	switch {
	case t.Running:
	case t.Err == nil:
		out.OK = true
	case errors.As(t.Err, &failed):
		out.Error, out.NextStep = oneLine(failed.Error()), issuer.NextStep(failed.Class)
	default:
		out.Error, out.NextStep = "the hub could not make the test", issuer.NextStep(issuer.Local)
	}
	return out
}
