// Issuers: the ways to get certificates, as main has them, and their accounts at CAs.

package httpapi

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/issuer"
)

// IssuerIntent writes issuers to main.
type IssuerIntent interface {
	CreateIssuer(ctx context.Context, actor hub.Principal, requestID, name string, spec apiv1.IssuerSpec) error
	ReplaceIssuer(ctx context.Context, actor hub.Principal, requestID, name string, spec apiv1.IssuerSpec) error
	DeleteIssuer(ctx context.Context, actor hub.Principal, requestID, name string) error
}

// CAs are what issuers order from.
type CAs interface {
	// Directory is the URL of a known CA's directory, CA the short name of the one at a directory, empty for another one.
	Directory(ca string) (string, error)
	CA(directory string) string
	// Check says why an issuer cannot be used as the hub is set up.
	Check(i *manifest.Issuer) error
	// Holder is what holds the account of an issuer; issuer.ErrUnsupported where it has none.
	Holder(i *manifest.Issuer) (issuer.AccountHolder, error)
}

func (s *server) addIssuers() {
	add(s, operation{id: "list-issuers", method: http.MethodGet, path: "/issuers", tag: "issuers", summary: "List issuers"}, s.listIssuers)
	add(s, operation{
		id: "create-issuer", method: http.MethodPost, path: "/issuers", tag: "issuers", summary: "Add an issuer, as a commit on main", status: http.StatusCreated,
	}, s.createIssuer)
	add(s, operation{id: "get-issuer", method: http.MethodGet, path: "/issuers/{id}", tag: "issuers", summary: "Show an issuer"}, s.getIssuer)
	add(s, operation{
		id: "replace-issuer", method: http.MethodPut, path: "/issuers/{id}", tag: "issuers", summary: "Change an issuer, as a commit on main",
	}, s.replaceIssuer)
	add(s, operation{
		id: "delete-issuer", method: http.MethodDelete, path: "/issuers/{id}", tag: "issuers", summary: "Remove an issuer that no certificate names", status: http.StatusNoContent,
	}, s.deleteIssuer)
	add(s, operation{
		id: "get-issuer-account", method: http.MethodPost, path: "/issuers/{id}/account", tag: "issuers",
		summary: "Ask the CA for the account, which is registered where there is none, with what stateless web servers need of it",
	}, s.issuerAccount)
	add(s, operation{
		id: "deactivate-account", method: http.MethodPost, path: "/issuers/{id}/deactivate", tag: "issuers",
		summary: "End the account at the CA for good; the next order makes another one", status: http.StatusNoContent,
	}, s.deactivateAccount)
}

func (s *server) viewIssuer(snap *gitstore.Snapshot, name string) apiv1.Issuer {
	i := snap.Issuers[name]
	v := apiv1.Issuer{Name: name, IssuerSpec: apiv1.IssuerSpec{Type: i.Type}}
	if a := i.ACME; a != nil {
		v.CA = s.cfg.CAs.CA(a.Directory)
		v.Directory, v.Email, v.EABCredential, v.Profile, v.PreferredChain = a.Directory, a.Email, a.EABCredential, a.Profile, a.PreferredChain
	}
	if p := i.PrivateCA; p != nil {
		v.PrivateCA, v.Lifetime = p.CA, p.Lifetime
	}
	for _, c := range snap.Certificates {
		if c.Issuer == name || c.FallbackIssuer == name {
			v.Certificates++
		}
	}
	if err := s.cfg.CAs.Check(i); err != nil {
		v.Problem = reasonOf(err)
	}
	return v
}

// reasonOf is what people are told of an issuer's error.
func reasonOf(err error) string {
	known, ok := errors.AsType[*issuer.Error](err)
	if !ok {
		return "the hub cannot set it up: its log says why"
	}
	return cmp.Or(known.Detail, "the hub cannot set it up: its log says why")
}

func (s *server) listIssuers(ctx context.Context, _ *call, in *searchInput) (*listOutput[apiv1.Issuer], error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	issuers := source[string]{
		fetch: sorted(slices.Sorted(maps.Keys(snap.Issuers))),
		key:   func(name string) string { return name },
		keep:  holding(in.Query, func(name string) []string { return []string{name} }),
	}
	return list(ctx, issuers, in.PageInput, func(name string) (apiv1.Issuer, error) { return s.viewIssuer(snap, name), nil })
}

func (s *server) knownIssuer(name string) (*gitstore.Snapshot, error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	if snap.Issuers[name] == nil {
		return nil, &hub.Error{Class: hub.ErrNotFound, Message: "there is no issuer of this name: certferry issuer ls lists them"}
	}
	return snap, nil
}

func (s *server) getIssuer(_ context.Context, _ *call, in *IDInput) (*output[apiv1.Issuer], error) {
	snap, err := s.knownIssuer(in.ID)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.Issuer]{Body: s.viewIssuer(snap, in.ID)}, nil
}

// complete puts the directory in the place of a known CA's name, and says whether the credential is there that the
// issuer names.
func (s *server) complete(ctx context.Context, spec *apiv1.IssuerSpec) error {
	if spec.CA != "" {
		directory, err := s.cfg.CAs.Directory(spec.CA)
		if err != nil {
			return invalid("body.ca", err.Error())
		}
		if spec.Directory != "" && spec.Directory != directory {
			return invalid("body.directory", "is not the one of the CA: leave one of the two out")
		}
		spec.Directory = directory
	}
	if spec.EABCredential == "" {
		return nil
	}
	all, err := s.cfg.Credentials.List(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(c hub.Credential) bool { return c.Name == spec.EABCredential }) {
		return invalid("body.eab_credential", "there is no credential of this name: add it first, with the provider eab")
	}
	return nil
}

func (s *server) createIssuer(ctx context.Context, c *call, in *input[apiv1.CreateIssuerRequest]) (*createdOutput[apiv1.Issuer], error) {
	if err := s.complete(ctx, &in.Body.IssuerSpec); err != nil {
		return nil, err
	}
	if err := s.cfg.IssuerIntent.CreateIssuer(ctx, c.principal, c.requestID, in.Body.Name, in.Body.IssuerSpec); err != nil {
		return nil, err
	}
	snap, err := s.knownIssuer(in.Body.Name)
	if err != nil {
		return nil, err
	}
	return &createdOutput[apiv1.Issuer]{Location: apiv1.Prefix + "/issuers/" + in.Body.Name, Body: s.viewIssuer(snap, in.Body.Name)}, nil
}

func (s *server) replaceIssuer(ctx context.Context, c *call, in *idBodyInput[apiv1.IssuerSpec]) (*output[apiv1.Issuer], error) {
	if _, err := s.knownIssuer(in.ID); err != nil {
		return nil, err
	}
	if err := s.complete(ctx, &in.Body); err != nil {
		return nil, err
	}
	if err := s.cfg.IssuerIntent.ReplaceIssuer(ctx, c.principal, c.requestID, in.ID, in.Body); err != nil {
		return nil, err
	}
	return s.getIssuer(ctx, c, &in.IDInput)
}

func (s *server) deleteIssuer(ctx context.Context, c *call, in *IDInput) (*none, error) {
	if _, err := s.knownIssuer(in.ID); err != nil {
		return nil, err
	}
	return nil, s.cfg.IssuerIntent.DeleteIssuer(ctx, c.principal, c.requestID, in.ID)
}

// holder is what holds the account of an issuer.
func (s *server) holder(name string) (issuer.AccountHolder, error) {
	snap, err := s.knownIssuer(name)
	if err != nil {
		return nil, err
	}
	holder, err := s.cfg.CAs.Holder(snap.Issuers[name])
	if errors.Is(err, issuer.ErrUnsupported) {
		return nil, &hub.Error{Class: hub.ErrConflict, Message: "issuers of this type have no account"}
	}
	return holder, accountError(err)
}

// accountError tells people what a CA said about an account.
func accountError(err error) error {
	known, ok := errors.AsType[*issuer.Error](err)
	if !ok {
		return err
	}
	return &hub.Error{Class: hub.ErrConflict, Message: known.Error() + ": " + issuer.NextStep(known.Class)}
}

func (s *server) issuerAccount(ctx context.Context, c *call, in *IDInput) (*output[apiv1.IssuerAccount], error) {
	holder, err := s.holder(in.ID)
	if err != nil {
		return nil, err
	}
	// It may make an account: it is recorded before.
	if err := s.cfg.Data.Audit(ctx, s.event(c, in.ID, hub.OutcomeOK, "asking the CA")); err != nil {
		return nil, err
	}
	account, err := holder.Account(ctx)
	if err != nil {
		return nil, accountError(err)
	}
	thumbprint, err := holder.Thumbprint(ctx)
	if err != nil {
		return nil, accountError(err)
	}
	out := apiv1.IssuerAccount{URL: account.URL, Status: account.Status, Contact: append([]string{}, account.Contact...), Thumbprint: thumbprint, Snippets: []apiv1.Snippet{}}
	for _, snippet := range issuer.StatelessSnippets(thumbprint) {
		out.Snippets = append(out.Snippets, apiv1.Snippet(snippet))
	}
	return &output[apiv1.IssuerAccount]{Body: out}, nil
}

func (s *server) deactivateAccount(ctx context.Context, c *call, in *idBodyInput[apiv1.DeactivateRequest]) (*none, error) {
	if in.Body.Confirm != in.ID {
		return nil, invalid("body.confirm", "must be the name of the issuer: the account cannot be brought back")
	}
	holder, err := s.holder(in.ID)
	if err != nil {
		return nil, err
	}
	// It cannot be taken back: what is about to happen is written down first.
	if err := s.cfg.Data.Audit(ctx, s.event(c, in.ID, hub.OutcomeOK, "asking the CA")); err != nil {
		return nil, err
	}
	if err := holder.Deactivate(ctx); err != nil {
		event := s.event(c, in.ID, hub.OutcomeFailed, "the CA did not deactivate the account")
		return nil, errors.Join(accountError(err), s.cfg.Data.Audit(ctx, event))
	}
	return nil, nil
}
