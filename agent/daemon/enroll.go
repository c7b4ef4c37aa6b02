// This file enrols a server: it makes the agent's key, registers it at the hub with a join token, and keeps the
// answer only when the hub's root key is the one that the administrator was given.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/certferry/certferry/agent/internal/hostinfo"
	"github.com/certferry/certferry/agent/internal/state"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub/apiv1"
)

// EnrollRequest is what the administrator gives to enrol a server.
type EnrollRequest struct {
	HubURL string
	// Name is the server's name, as the join token names it.
	Name string
	// Token is the one-time join token.
	Token string
	// RootFingerprint is that of the hub's root key, told by another way than the hub.
	RootFingerprint string
	// Force replaces an identity that is there already.
	Force bool
}

// Enrollment is the outcome of an enrolment.
type Enrollment struct {
	Server string `json:"server" yaml:"server"`
	// Fingerprint is the agent's key's; a person compares it when approving the server.
	Fingerprint string `json:"fingerprint" yaml:"fingerprint"`
	// State is pending until a person approves the server, or approved.
	State string `json:"state" yaml:"state"`
}

// ErrEnrolled means that the server has an identity already.
var ErrEnrolled = errors.New("this server is enrolled already; give --force to enrol it anew")

var fingerprintPattern = regexp.MustCompile(`^[0-9A-F]{40}$`)

// Enroll registers this server and stores its identity. Nothing is stored when anything fails.
func Enroll(ctx context.Context, cfg Config, version string, req EnrollRequest, env Environment) (Enrollment, error) {
	root := strings.ToUpper(strings.NewReplacer(" ", "", ":", "").Replace(req.RootFingerprint))
	switch {
	case checkURL(req.HubURL) != nil:
		return Enrollment{}, fmt.Errorf("enrol at the hub: its URL %w", checkURL(req.HubURL))
	case manifest.ValidName(req.Name) != nil:
		return Enrollment{}, fmt.Errorf("enrol as this name: %w", manifest.ValidName(req.Name))
	case req.Token == "":
		return Enrollment{}, errors.New("enrol without a join token: give it in CERTFERRY_JOIN_TOKEN or on standard input")
	case !fingerprintPattern.MatchString(root):
		return Enrollment{}, errors.New("check root fingerprint: it must have 40 hexadecimal digits, as the hub printed it")
	}
	dir, err := state.Open(cfg.StateDir)
	if err != nil {
		return Enrollment{}, err
	}
	unlock, err := dir.Lock(ctx)
	if err != nil {
		return Enrollment{}, err
	}
	defer unlock()
	if !req.Force {
		switch _, _, _, err := dir.Identity(); {
		case err == nil:
			return Enrollment{}, ErrEnrolled
		case !errors.Is(err, ErrNotEnrolled):
			return Enrollment{}, fmt.Errorf("%w; give --force to enrol this server anew", err)
		}
	}
	return register(ctx, cfg, version, req, root, dir, env)
}

func register(ctx context.Context, cfg Config, version string, req EnrollRequest, root string, dir *state.Dir, env Environment) (Enrollment, error) {
	key, err := seal.Generate("certferry agent "+req.Name, env.Now())
	if err != nil {
		return Enrollment{}, fmt.Errorf("make agent key: %w", err)
	}
	armored, err := key.Armor()
	if err != nil {
		return Enrollment{}, fmt.Errorf("encode agent key: %w", err)
	}
	public, err := key.Public().Armor()
	if err != nil {
		return Enrollment{}, fmt.Errorf("encode agent key: %w", err)
	}
	hub, err := newHubClient(cfg, req.HubURL, "")
	if err != nil {
		return Enrollment{}, err
	}
	registered, err := hub.Register(ctx, apiv1.RegisterRequest{
		Token: req.Token, Name: req.Name, RootFingerprint: root, PublicKey: string(public), Facts: hostinfo.Read(version),
	})
	if err != nil {
		return Enrollment{}, fmt.Errorf("register at the hub: %w", err)
	}
	rootKey, err := seal.ParsePublicKey([]byte(registered.RootKey))
	if err != nil {
		return Enrollment{}, fmt.Errorf("read the hub's root key: %w", err)
	}
	switch {
	case rootKey.Fingerprint() != root:
		return Enrollment{}, fmt.Errorf("check the hub's root key: its fingerprint is %s, not the one you gave: this is another hub, or someone stands between", rootKey.Fingerprint())
	case registered.Server != req.Name:
		return Enrollment{}, errors.New("check registration: the hub answered for another server")
	case registered.RepoID == "" || registered.Credential == "":
		return Enrollment{}, errors.New("check registration: the hub's answer lacks the repository or the credential")
	case checkURL(registered.GitURL) != nil: // the credential goes there
		return Enrollment{}, fmt.Errorf("check registration: the URL of the hub's Git remote %w", checkURL(registered.GitURL))
	}
	if err := dir.Reset(); err != nil {
		return Enrollment{}, err
	}
	id := state.Identity{
		Server: registered.Server, HubURL: strings.TrimSuffix(req.HubURL, "/"), GitURL: registered.GitURL,
		RepoID: registered.RepoID, Fingerprint: key.Fingerprint(), RootFingerprint: root, RootKey: registered.RootKey,
	}
	if err := dir.SaveIdentity(id, armored, registered.Credential); err != nil {
		return Enrollment{}, err
	}
	env.Logger.InfoContext(ctx, "server enrolled", slog.String("server", id.Server), slog.String("state", registered.State))
	return Enrollment{Server: id.Server, Fingerprint: id.Fingerprint, State: registered.State}, nil
}
