// This file writes issuers: the ways to get certificates.

package intent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/issuer"
)

// CreateIssuer writes issuers/<name>.yaml.
func (s *Service) CreateIssuer(ctx context.Context, actor hub.Principal, requestID, name string, spec apiv1.IssuerSpec) error {
	return s.putIssuer(ctx, act{actor, requestID, "create-issuer", name, gitstore.TrailerIssuer}, spec, false)
}

// ReplaceIssuer changes it. What was issued stays; the next orders go where it says then.
func (s *Service) ReplaceIssuer(ctx context.Context, actor hub.Principal, requestID, name string, spec apiv1.IssuerSpec) error {
	return s.putIssuer(ctx, act{actor, requestID, "replace-issuer", name, gitstore.TrailerIssuer}, spec, true)
}

func (s *Service) putIssuer(ctx context.Context, a act, spec apiv1.IssuerSpec, there bool) error {
	wish := issuerOf(a.object, spec)
	if err := s.checkIssuer(wish, spec); err != nil {
		return err
	}
	data, err := wish.Encode()
	if err != nil {
		return fmt.Errorf("write issuer %s: %w", wish.Name, err)
	}
	verb := "add"
	if there {
		verb = "change"
	}
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		path := manifest.IssuerPath(wish.Name)
		_, taken := snapshot.Issuers[wish.Name]
		switch {
		case taken && !there:
			return gitstore.Change{}, conflict("an issuer of this name exists: choose another name, or change that one")
		case !taken && there:
			return gitstore.Change{}, notFound("there is no issuer of this name: certferry issuer ls lists them")
		case isFaulty(snapshot, path):
			return gitstore.Change{}, conflict("an issuer of this name stands on main, but its file cannot be read: mend it there first")
		}
		return gitstore.Change{Subject: fmt.Sprintf("%s issuer %s", verb, wish.Name), Edits: []gitrepo.Edit{{Path: path, Data: data}}}, nil
	})
}

// DeleteIssuer removes it; certificates that name it must be changed first.
func (s *Service) DeleteIssuer(ctx context.Context, actor hub.Principal, requestID, name string) error {
	a := act{actor, requestID, "delete-issuer", name, gitstore.TrailerIssuer}
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		if snapshot.Issuers[name] == nil {
			return gitstore.Change{}, notFound("there is no issuer of this name: certferry issuer ls lists them")
		}
		for _, c := range slices.Sorted(maps.Keys(snapshot.Certificates)) {
			if wish := snapshot.Certificates[c]; wish.Issuer == name || wish.FallbackIssuer == name {
				return gitstore.Change{}, conflict("the certificate " + c + " names it: give it another issuer first")
			}
		}
		return gitstore.Change{Subject: "remove issuer " + name, Edits: []gitrepo.Edit{{Path: manifest.IssuerPath(name), Delete: true}}}, nil
	})
}

func issuerOf(name string, spec apiv1.IssuerSpec) *manifest.Issuer {
	i := &manifest.Issuer{APIVersion: manifest.APIVersion, Kind: manifest.KindIssuer, Name: name, Type: spec.Type}
	if spec.Directory != "" || spec.Email != "" || spec.EABCredential != "" || spec.Profile != "" || spec.PreferredChain != "" {
		i.ACME = &manifest.ACMEIssuer{
			Directory: spec.Directory, Email: spec.Email, EABCredential: spec.EABCredential, Profile: spec.Profile, PreferredChain: spec.PreferredChain,
		}
	}
	if spec.PrivateCA != "" || spec.Lifetime != "" {
		i.PrivateCA = &manifest.PrivateCAIssuer{CA: spec.PrivateCA, Lifetime: spec.Lifetime}
	}
	return i
}

// checkIssuer says everything that is wrong with an issuer, and whether the hub could use it.
func (s *Service) checkIssuer(wish *manifest.Issuer, spec apiv1.IssuerSpec) error {
	var f faults
	f.add("body.name", manifest.ValidName(wish.Name))
	if spec.Type == "acmesh" && spec.Directory == "" {
		f.add("body.directory", errors.New("is missing: give the URL of the CA's directory"))
	}
	if len(f) == 0 {
		f.whole(wish.Validate())
	}
	if len(f) == 0 {
		if err := s.cfg.CheckIssuer(wish); err != nil {
			text := err.Error()
			if known, ok := errors.AsType[*issuer.Error](err); ok && known.Detail != "" {
				text = known.Detail
			}
			f.add("body", errors.New(text))
		}
	}
	if len(f) == 0 {
		return nil
	}
	for i := range f {
		f[i].Message = strings.TrimPrefix(f[i].Message, "check issuer: ")
	}
	return &hub.Error{Class: hub.ErrInvalid, Message: "the issuer has faults: mend them and send it again", Faults: f}
}
