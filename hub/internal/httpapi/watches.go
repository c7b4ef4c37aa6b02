// Watches: certificates that somebody should hear of before they end, and the endpoints that operators listed.

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// Watches reads what is watched.
type Watches interface {
	Watches(ctx context.Context, kind hub.WatchKind, after string, limit int) ([]hub.Watch, error)
	InsertEndpoint(ctx context.Context, e hub.Endpoint, event hub.AuditEvent) error
	DeleteEndpoint(ctx context.Context, name string, event hub.AuditEvent) error
	Endpoints(ctx context.Context, after string, limit int) ([]hub.Endpoint, error)
}

// Finds hears what agents find.
type Finds interface {
	Found(ctx context.Context, server string, found []hub.Watch) error
}

func (s *server) addWatches() {
	add(s, operation{
		id: "list-watches", method: http.MethodGet, path: "/watches", tag: "overview",
		summary: "List certificates that are watched: managed, found by agents, shown by endpoints",
	}, s.listWatches)
	add(s, operation{
		id: "list-endpoints", method: http.MethodGet, path: "/endpoints", tag: "overview", summary: "List the endpoints that are watched",
	}, s.listEndpoints)
	add(s, operation{
		id: "create-endpoint", method: http.MethodPost, path: "/endpoints", tag: "overview", summary: "Watch an endpoint", status: http.StatusCreated,
	}, s.createEndpoint)
	add(s, operation{
		id: "delete-endpoint", method: http.MethodDelete, path: "/endpoints/{id}", tag: "overview", summary: "Stop watching an endpoint", status: http.StatusNoContent,
	}, s.deleteEndpoint)
}

type watchesInput struct {
	PageInput

	Kind string `query:"kind" enum:"managed,found,endpoint" doc:"Lists those of one kind only."`
}

func (s *server) listWatches(ctx context.Context, _ *call, in *watchesInput) (*listOutput[apiv1.Watch], error) {
	watches := source[hub.Watch]{
		fetch: func(ctx context.Context, after string, limit int) ([]hub.Watch, error) {
			return s.cfg.Data.Watches(ctx, hub.WatchKind(in.Kind), after, limit)
		},
		key: func(w hub.Watch) string { return string(w.Kind) + " " + w.Object },
	}
	return list(ctx, watches, in.PageInput, func(w hub.Watch) (apiv1.Watch, error) {
		level, _ := w.LevelAt(s.cfg.Now())
		return apiv1.Watch{
			Kind: string(w.Kind), Object: w.Object, Names: append([]string{}, w.Names...), Issuer: w.Issuer, LeafSHA256: w.LeafSHA256,
			NotBefore: w.NotBefore, NotAfter: w.NotAfter, Level: string(level), Problem: w.Problem, SeenAt: w.SeenAt,
		}, nil
	})
}

func (s *server) listEndpoints(ctx context.Context, _ *call, in *PageInput) (*listOutput[apiv1.Endpoint], error) {
	endpoints := source[hub.Endpoint]{fetch: s.cfg.Data.Endpoints, key: func(e hub.Endpoint) string { return e.Name }}
	return list(ctx, endpoints, *in, func(e hub.Endpoint) (apiv1.Endpoint, error) { return viewEndpoint(e), nil })
}

func viewEndpoint(e hub.Endpoint) apiv1.Endpoint {
	return apiv1.Endpoint{
		EndpointRequest: apiv1.EndpointRequest{Name: e.Name, Address: e.Address, ServerName: e.ServerName, Trust: e.Trust},
		CreatedBy:       e.CreatedBy, CreatedAt: e.CreatedAt, Failures: e.Failures, NextProbe: e.NextProbe,
	}
}

func (s *server) createEndpoint(ctx context.Context, c *call, in *input[apiv1.EndpointRequest]) (*createdOutput[apiv1.Endpoint], error) {
	e := hub.Endpoint{
		Name: in.Body.Name, Address: in.Body.Address, ServerName: in.Body.ServerName, Trust: in.Body.Trust,
		CreatedBy: c.principal.Name, CreatedAt: s.cfg.Now(), NextProbe: s.cfg.Now(),
	}
	if err := completeEndpoint(&e); err != nil {
		return nil, err
	}
	err := s.cfg.Data.InsertEndpoint(ctx, e, s.event(c, e.Name, hub.OutcomeOK, e.Address+" as "+e.ServerName))
	if errors.Is(err, hub.ErrConflict) {
		return nil, &hub.Error{Class: hub.ErrConflict, Message: "there is an endpoint of this name already: choose another name"}
	}
	if err != nil {
		return nil, err
	}
	return &createdOutput[apiv1.Endpoint]{Location: apiv1.Prefix + "/endpoints/" + e.Name, Body: viewEndpoint(e)}, nil
}

// completeEndpoint fills in what was left out and says what is wrong.
func completeEndpoint(e *hub.Endpoint) error {
	if err := manifest.ValidName(e.Name); err != nil {
		return invalid("body.name", err.Error())
	}
	host, port, err := net.SplitHostPort(e.Address)
	if n, perr := strconv.Atoi(port); err != nil || host == "" || perr != nil || n < 1 || n > 65535 {
		return invalid("body.address", "must be a host and a port such as www.example.com:443")
	}
	if ip := net.ParseIP(host); ip == nil && !isHost(host) {
		return invalid("body.address", "the host must be a DNS name or an IP address")
	} else if ip != nil && (ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified()) {
		return invalid("body.address", "link-local addresses are not looked at: machines keep there what is only for themselves")
	}
	if e.ServerName == "" {
		e.ServerName = host
	}
	if net.ParseIP(e.ServerName) == nil && !isHost(e.ServerName) {
		return invalid("body.server_name", "must be a DNS name")
	}
	if e.Trust == "" {
		e.Trust = "system"
	}
	return nil
}

// isHost says whether a name is one that a client can ask for: a wildcard stands in certificates only.
func isHost(name string) bool {
	return manifest.ValidDNSName(name) == nil && !strings.HasPrefix(name, "*.")
}

func (s *server) deleteEndpoint(ctx context.Context, c *call, in *IDInput) (*none, error) {
	if err := s.cfg.Data.DeleteEndpoint(ctx, in.ID, s.event(c, in.ID, hub.OutcomeOK, "")); err != nil {
		return nil, named(err, "there is no endpoint of this name")
	}
	return nil, errors.Join(
		s.cfg.Data.Clear(ctx, hub.AlertEndpointFaulty, in.ID),
		s.cfg.Data.Clear(ctx, hub.AlertCertificateExpiring, hub.WatchEndpoint.Alert(in.ID)),
	)
}

// takeFound passes on what an agent found. A fault here must not cost the agent its answer.
func (s *server) takeFound(ctx context.Context, c *call, found *[]apiv1.FoundCertificate) {
	if found == nil || s.cfg.Finds == nil {
		return
	}
	var watches []hub.Watch
	for _, f := range *found {
		object, ok := foundAt(f)
		if !ok || !leafHash.MatchString(f.LeafSHA256) || !f.NotBefore.Before(f.NotAfter) {
			continue
		}
		w := hub.Watch{Object: object, Issuer: oneLine(f.Issuer), LeafSHA256: f.LeafSHA256, NotBefore: f.NotBefore, NotAfter: f.NotAfter}
		for _, name := range f.Names {
			if manifest.ValidDNSName(name) == nil {
				w.Names = append(w.Names, name)
			}
		}
		watches = append(watches, w)
	}
	if err := s.cfg.Finds.Found(ctx, c.principal.Name, watches); err != nil {
		s.logFault(ctx, c, fmt.Errorf("take what the agent found: %w", err))
	}
}

// foundAt names what was found within its server: the target, or the file's path without the leading slash.
func foundAt(f apiv1.FoundCertificate) (string, bool) {
	if f.Target != "" {
		return f.Target, manifest.ValidName(f.Target) == nil
	}
	rest, absolute := strings.CutPrefix(f.Path, "/")
	return rest, absolute && rest != "" && oneLine(rest) == rest
}
