// This file logs people in and out and says who a caller is.

package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/alexedwards/argon2id"
	"golang.org/x/sync/semaphore"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

const (
	accessLife  = time.Hour
	refreshLife = 12 * time.Hour
	// refreshGrace lets tabs that refresh at the same moment live: the token that was just rotated out still gives
	// an access token, and is theft after that.
	refreshGrace = 10 * time.Second
	// setupSetting holds the hash of the setup code until the first administrator exists.
	setupSetting = "setup_code_hash"
)

// Store keeps accounts and sessions; hub/internal/database is one.
type Store interface {
	Users
	Sessions
	Settings
	ServerByCredential(ctx context.Context, hash string) (hub.Server, error)
	Audit(ctx context.Context, event hub.AuditEvent) error
}

// Users is the part of Store about accounts.
type Users interface {
	User(ctx context.Context, name string) (hub.User, error)
	HasAdmin(ctx context.Context) (bool, error)
	InsertUser(ctx context.Context, u hub.User, event hub.AuditEvent) error
	InsertFirstAdmin(ctx context.Context, u hub.User, setupSetting string, event hub.AuditEvent) error
	UpdatePassword(ctx context.Context, name, hash string, at time.Time, event hub.AuditEvent) error
}

// Sessions is the part of Store about logins.
type Sessions interface {
	InsertSession(ctx context.Context, s hub.Session, event hub.AuditEvent) error
	Session(ctx context.Context, id string) (hub.Session, error)
	SessionByRefresh(ctx context.Context, hash string) (hub.Session, error)
	RotateSession(ctx context.Context, id, oldHash, newHash string, at time.Time) (bool, error)
	DeleteSession(ctx context.Context, id string, event hub.AuditEvent) error
}

// Settings is the part of Store about single values.
type Settings interface {
	Setting(ctx context.Context, name string) (string, error)
	SetSetting(ctx context.Context, name, value string) error
}

// Config is what New needs.
type Config struct {
	Store Store
	// SigningKey signs access tokens (HS256); at least 32 bytes.
	SigningKey []byte
	Now        func() time.Time
	// Argon2 are the parameters of password hashes; nil for 64 MiB, 3 passes, 4 lanes.
	Argon2 *argon2id.Params
}

// Auth is safe for concurrent use.
type Auth struct {
	cfg      Config
	throttle *throttle
	// hashing bounds how many password hashes run at once: each takes much memory.
	hashing *semaphore.Weighted
	// nobody is the hash that a password for an unknown account is held against.
	nobody string
}

// New checks cfg.
func New(cfg Config) (*Auth, error) {
	switch {
	case cfg.Store == nil || cfg.Now == nil:
		return nil, errors.New("make authentication: store or clock is missing")
	case len(cfg.SigningKey) < 32:
		return nil, errors.New("make authentication: the signing key has less than 32 bytes")
	}
	if cfg.Argon2 == nil {
		cfg.Argon2 = &argon2id.Params{Memory: 64 << 10, Iterations: 3, Parallelism: 4, SaltLength: 16, KeyLength: 32}
	}
	nobody, err := argon2id.CreateHash(rand.Text(), cfg.Argon2)
	if err != nil {
		return nil, fmt.Errorf("make authentication: %w", err)
	}
	return &Auth{
		cfg: cfg, nobody: nobody, throttle: newThrottle(cfg.Now),
		hashing: semaphore.NewWeighted(int64(runtime.NumCPU())),
	}, nil
}

// Login is a session as its owner gets it. Access, and Refresh where set, are secrets.
type Login struct {
	Access    string
	ExpiresAt time.Time
	// Refresh is empty where the refresh token that the caller's browser holds already stays valid.
	Refresh          string
	RefreshExpiresAt time.Time
	User             hub.User
}

func unauthenticated(message string) error {
	return &hub.Error{Class: hub.ErrUnauthenticated, Message: message}
}

func (a *Auth) event(actor, action, outcome, address, detail string) hub.AuditEvent {
	return hub.AuditEvent{At: a.cfg.Now(), Actor: actor, Action: action, Object: actor, Outcome: outcome, Address: address, Detail: detail}
}

// SetupNeeded says whether the first administrator still has to be made.
func (a *Auth) SetupNeeded(ctx context.Context) (bool, error) {
	has, err := a.cfg.Store.HasAdmin(ctx)
	return !has, err
}

// EnsureSetupCode makes a new setup code where no administrator exists; the code made before ends. The caller shows
// it to whoever started the hub.
func (a *Auth) EnsureSetupCode(ctx context.Context) (code string, needed bool, err error) {
	if needed, err = a.SetupNeeded(ctx); err != nil || !needed {
		return "", false, err
	}
	code, hash := NewToken(setupPrefix)
	return code, true, a.cfg.Store.SetSetting(ctx, setupSetting, hash)
}

// Setup makes the first administrator and logs in. The code works once.
func (a *Auth) Setup(ctx context.Context, code, name, password string) (Login, error) {
	want, err := a.cfg.Store.Setting(ctx, setupSetting)
	if err != nil {
		return Login{}, err
	}
	if want == "" || subtle.ConstantTimeCompare([]byte(HashToken(strings.TrimSpace(code))), []byte(want)) != 1 {
		// Nobody guesses 256 bits: the throttle spares the audit history, and never stops who has the code.
		if err := a.throttle.begin(ctx, "setup"); err != nil {
			return Login{}, err
		}
		defer a.throttle.end(true, "setup")
		refused := unauthenticated("the setup code is not valid: take the one that the hub printed when it last started")
		return Login{}, errors.Join(refused, a.cfg.Store.Audit(ctx, a.event(string(hub.Anonymous), "setup", hub.OutcomeDenied, "", "wrong setup code")))
	}
	user, err := a.newUser(ctx, name, password, apiv1.RoleAdmin)
	if err != nil {
		return Login{}, err
	}
	if err := a.cfg.Store.InsertFirstAdmin(ctx, user, setupSetting, a.event(name, "setup", hub.OutcomeOK, "", "")); err != nil {
		return Login{}, err
	}
	return a.start(ctx, user, "")
}

// CreateUser makes an account in the name of actor.
func (a *Auth) CreateUser(ctx context.Context, actor hub.Principal, name, password string, role apiv1.Role) (hub.User, error) {
	user, err := a.newUser(ctx, name, password, role)
	if err != nil {
		return hub.User{}, err
	}
	event := a.event(actor.Name, "create-user", hub.OutcomeOK, "", "role: "+string(role))
	event.Object = name
	return user, a.cfg.Store.InsertUser(ctx, user, event)
}

// SetPassword replaces an account's password in the name of actor and ends all its sessions.
func (a *Auth) SetPassword(ctx context.Context, actor hub.Principal, name, password string) error {
	if err := checkPassword(name, password); err != nil {
		return err
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	event := a.event(actor.Name, "set-password", hub.OutcomeOK, "", "")
	event.Object = name
	return a.cfg.Store.UpdatePassword(ctx, name, hash, a.cfg.Now(), event)
}

var userName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func (a *Auth) newUser(ctx context.Context, name, password string, role apiv1.Role) (hub.User, error) {
	if !userName.MatchString(name) {
		return hub.User{}, &hub.Error{Class: hub.ErrInvalid, Message: "the account's name is not valid", Faults: []hub.Fault{{
			Location: "body.name", Message: "must be lower-case letters, digits, dots, hyphens and underscores, at most 64",
		}}}
	}
	switch role {
	case apiv1.RoleViewer, apiv1.RoleOperator, apiv1.RoleAdmin:
	default:
		return hub.User{}, &hub.Error{Class: hub.ErrInvalid, Message: "the role is not valid", Faults: []hub.Fault{{
			Location: "body.role", Message: "must be viewer, operator or admin",
		}}}
	}
	if err := checkPassword(name, password); err != nil {
		return hub.User{}, err
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return hub.User{}, err
	}
	now := a.cfg.Now()
	return hub.User{Name: name, Role: role, PasswordHash: hash, CreatedAt: now, SessionsFrom: now}, nil
}

// Login checks name and password. Failures are counted by account and by address.
func (a *Auth) Login(ctx context.Context, name, password, address string) (Login, error) {
	keys := []string{addressKey(address)}
	if userName.MatchString(name) { // no other account exists, and what was typed may be long
		keys = append(keys, accountKey(name))
	}
	if err := a.throttle.begin(ctx, keys...); err != nil {
		return Login{}, err
	}
	user, err := a.check(ctx, name, password)
	a.throttle.end(errors.Is(err, hub.ErrUnauthenticated), keys...)
	switch {
	case err == nil:
		a.throttle.forget(accountKey(name))
		return a.start(ctx, user, address)
	case !errors.Is(err, hub.ErrUnauthenticated):
		return Login{}, err
	}
	actor := user.Name
	if actor == "" {
		actor = string(hub.Anonymous) // what was typed as a name may be a password
	}
	return Login{}, errors.Join(err, a.cfg.Store.Audit(ctx, a.event(actor, "login", hub.OutcomeDenied, address, "")))
}

func accountKey(name string) string { return "account:" + name }

// check answers the account if the password is its own, and with an error the account that was meant, if there is
// one. It takes the same time for one that does not exist.
func (a *Auth) check(ctx context.Context, name, password string) (hub.User, error) {
	user, err := hub.User{}, hub.ErrNotFound
	if userName.MatchString(name) {
		user, err = a.cfg.Store.User(ctx, name)
	}
	known := err == nil
	if err != nil && !errors.Is(err, hub.ErrNotFound) {
		return hub.User{}, err
	}
	hash := user.PasswordHash
	if !known {
		hash = a.nobody
	}
	match, err := a.matches(ctx, password, hash)
	if err != nil {
		return hub.User{}, err
	}
	if !known || !match || user.Disabled {
		return user, unauthenticated("name or password is wrong")
	}
	return user, nil
}

// start keeps a new session for user.
func (a *Auth) start(ctx context.Context, user hub.User, address string) (Login, error) {
	now := a.cfg.Now()
	refresh, hash := NewToken(refreshPrefix)
	s := hub.Session{
		ID: rand.Text(), User: user.Name, RefreshHash: hash, RotatedAt: now, CreatedAt: now, ExpiresAt: now.Add(refreshLife),
	}
	if err := a.cfg.Store.InsertSession(ctx, s, a.event(user.Name, "login", hub.OutcomeOK, address, "")); err != nil {
		return Login{}, err
	}
	return a.login(user, s, refresh)
}

func (a *Auth) login(user hub.User, s hub.Session, refresh string) (Login, error) {
	access, expires, err := a.signAccess(user.Name, s)
	if err != nil {
		return Login{}, err
	}
	l := Login{Access: access, ExpiresAt: expires, User: user}
	if refresh != "" {
		l.Refresh, l.RefreshExpiresAt = refresh, s.ExpiresAt
	}
	return l, nil
}

// Refresh gives a new access token for a refresh token, which is replaced. A token that was replaced before gives an
// access token only within a short grace; later its use means that somebody else has it, and the session ends.
func (a *Auth) Refresh(ctx context.Context, token string) (Login, error) {
	hash := HashToken(token)
	s, err := a.cfg.Store.SessionByRefresh(ctx, hash)
	if errors.Is(err, hub.ErrNotFound) {
		return Login{}, unauthenticated("the session has ended: log in again")
	}
	if err != nil {
		return Login{}, err
	}
	now := a.cfg.Now()
	user, err := a.cfg.Store.User(ctx, s.User)
	if err != nil {
		return Login{}, err
	}
	if !now.Before(s.ExpiresAt) || user.Disabled {
		return Login{}, unauthenticated("the session has ended: log in again")
	}
	if s.RefreshHash == hash {
		next, nextHash := NewToken(refreshPrefix)
		rotated, err := a.cfg.Store.RotateSession(ctx, s.ID, hash, nextHash, now)
		if err != nil {
			return Login{}, err
		}
		if rotated {
			return a.login(user, s, next)
		}
		s.PreviousHash, s.RotatedAt = hash, now // another tab rotated it between our two looks
	}
	if s.PreviousHash == hash && now.Sub(s.RotatedAt) <= refreshGrace {
		return a.login(user, s, "")
	}
	refused := unauthenticated("the session was used from two places and has ended: log in again")
	return Login{}, errors.Join(refused, a.cfg.Store.DeleteSession(ctx, s.ID,
		a.event(s.User, "refresh", hub.OutcomeDenied, "", "a replaced refresh token was used: session ended")))
}

// Logout ends a session; its access tokens end with it.
func (a *Auth) Logout(ctx context.Context, sessionID string) error {
	s, err := a.cfg.Store.Session(ctx, sessionID)
	if errors.Is(err, hub.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.cfg.Store.DeleteSession(ctx, sessionID, a.event(s.User, "logout", hub.OutcomeOK, "", ""))
}

// Authenticate says who the bearer of a token is: a person by an access token, an agent by its credential. The error
// is of class hub.ErrUnauthenticated.
func (a *Auth) Authenticate(ctx context.Context, bearer string) (hub.Principal, error) {
	if strings.HasPrefix(bearer, CredentialPrefix) {
		return a.agent(ctx, bearer)
	}
	return a.person(ctx, bearer)
}

// AuthenticateGit says who a caller of the Git door is: a server by its name and credential, or a person by name and
// access token.
func (a *Auth) AuthenticateGit(ctx context.Context, name, secret string) (hub.Principal, error) {
	p, err := a.Authenticate(ctx, secret)
	if err != nil {
		return hub.Principal{}, err
	}
	if p.Name != name {
		return hub.Principal{}, unauthenticated("name and credential do not belong together")
	}
	return p, nil
}

func (a *Auth) agent(ctx context.Context, credential string) (hub.Principal, error) {
	s, err := a.cfg.Store.ServerByCredential(ctx, HashToken(credential))
	switch {
	case errors.Is(err, hub.ErrNotFound):
		return hub.Principal{}, unauthenticated("the server's credential is not valid: enrol it anew")
	case err != nil:
		return hub.Principal{}, err
	case s.State == hub.ServerDisabled:
		return hub.Principal{}, unauthenticated("the server is disabled")
	}
	return hub.Principal{Kind: hub.Agent, Name: s.Name}, nil
}

func (a *Auth) person(ctx context.Context, access string) (hub.Principal, error) {
	ended := unauthenticated("the session has ended: log in again")
	name, sessionID, issued, err := a.verifyAccess(access)
	if err != nil {
		return hub.Principal{}, ended
	}
	user, err := a.cfg.Store.User(ctx, name)
	if errors.Is(err, hub.ErrNotFound) {
		return hub.Principal{}, ended
	}
	if err != nil {
		return hub.Principal{}, err
	}
	// Tokens carry whole seconds; a session made in the second of a password change is a new one.
	if user.Disabled || issued.Before(user.SessionsFrom.Truncate(time.Second)) {
		return hub.Principal{}, ended
	}
	s, err := a.cfg.Store.Session(ctx, sessionID)
	switch {
	case errors.Is(err, hub.ErrNotFound):
		return hub.Principal{}, ended
	case err != nil:
		return hub.Principal{}, err
	case s.User != name, !a.cfg.Now().Before(s.ExpiresAt):
		return hub.Principal{}, ended
	}
	return hub.Principal{Kind: hub.Person, Name: name, Role: user.Role, SessionID: sessionID}, nil
}
