package auth_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
)

// TestForgedAccessTokens starts from claims that work and spoils them in every way.
func TestForgedAccessTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.person("alice", apiv1.RoleAdmin)
	mallory := w.person("mallory", apiv1.RoleViewer)
	p, err := w.Authenticate(t.Context(), l.Access)
	w.must(err)
	good := jwt.MapClaims{
		"iss": "certferry", "aud": "certferry-api", "sub": "alice", "sid": p.SessionID,
		"iat": start.Unix(), "exp": start.Add(time.Hour).Unix(),
	}
	sign := func(method jwt.SigningMethod, key any, change jwt.MapClaims) string {
		claims := maps.Clone(good)
		for name, value := range change {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		w.must(err)
		return token
	}
	with := func(change jwt.MapClaims) string { return sign(jwt.SigningMethodHS256, key, change) }
	if !w.live(with(nil)) {
		t.Fatal("the claims that the forgeries start from do not work")
	}
	parts := strings.Split(l.Access, ".")
	foreign := strings.Split(mallory.Access, ".")
	for name, token := range map[string]string{
		"empty":                     "",
		"no token":                  "Bearer",
		"no algorithm":              sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil),
		"signature cut off":         parts[0] + "." + parts[1] + ".",
		"claims of another token":   parts[0] + "." + foreign[1] + "." + parts[2],
		"HS512 with the right key":  sign(jwt.SigningMethodHS512, key, nil),
		"HS384 with the right key":  sign(jwt.SigningMethodHS384, key, nil),
		"another key":               sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), nil),
		"an empty key":              sign(jwt.SigningMethodHS256, []byte{}, nil),
		"another audience":          with(jwt.MapClaims{"aud": "certferry-agent"}),
		"no audience":               with(jwt.MapClaims{"aud": nil}),
		"another issuer":            with(jwt.MapClaims{"iss": "certferri"}),
		"no issuer":                 with(jwt.MapClaims{"iss": nil}),
		"no expiry":                 with(jwt.MapClaims{"exp": nil}),
		"expired":                   with(jwt.MapClaims{"exp": start.Add(-time.Minute).Unix()}),
		"expiry is text":            with(jwt.MapClaims{"exp": "never"}),
		"issued in the future":      with(jwt.MapClaims{"iat": start.Add(2 * time.Minute).Unix()}),
		"no time of issue":          with(jwt.MapClaims{"iat": nil}),
		"not valid yet":             with(jwt.MapClaims{"nbf": start.Add(2 * time.Minute).Unix()}),
		"issued before the account": with(jwt.MapClaims{"iat": start.Add(-time.Minute).Unix()}),
		"nobody":                    with(jwt.MapClaims{"sub": nil}),
		"unknown account":           with(jwt.MapClaims{"sub": "bob"}),
		"NUL in the account":        with(jwt.MapClaims{"sub": "alice\x00"}),
		"no session":                with(jwt.MapClaims{"sid": nil}),
		"unknown session":           with(jwt.MapClaims{"sid": "x"}),
		"another account's session": with(jwt.MapClaims{"sub": "mallory"}),
		"a refresh token":           l.Refresh,
		"an agent's credential":     auth.CredentialPrefix + "AAAA",
	} {
		t.Run(name, func(t *testing.T) {
			p, err := w.Authenticate(t.Context(), token)
			w.fails(err, hub.ErrUnauthenticated)
			if p != (hub.Principal{}) {
				t.Errorf("named %+v", p)
			}
		})
	}
}

// TestNewRefuses holds that nobody runs with a key that can be guessed.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, cfg := range map[string]auth.Config{
		"no key":     {Store: w.db, Now: w.clock},
		"short key":  {Store: w.db, Now: w.clock, SigningKey: key[:31]},
		"no store":   {Now: w.clock, SigningKey: key},
		"no clock":   {Store: w.db, SigningKey: key},
		"everything": {},
	} {
		if _, err := auth.New(cfg); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

// TestTokens holds that tokens are of their kind, long, and never the same.
func TestTokens(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		token, hash := auth.NewCredential()
		if seen[token] || !strings.HasPrefix(token, "cfa_") || len(token) != 47 || len(hash) != 64 || auth.HashToken(token) != hash {
			t.Fatalf("got %s %s", token, hash)
		}
		seen[token] = true
	}
	if got := auth.HashToken(""); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("got %s", got)
	}
}

// enrol makes a server with a credential of its own.
func (w *world) enrol(name string) string {
	w.t.Helper()
	token, hash := auth.NewCredential()
	join := hub.JoinToken{Hash: "join for " + hash, Server: name, ExpiresAt: w.clock().Add(time.Hour)}
	w.must(w.db.InsertJoinToken(w.t.Context(), join, hub.AuditEvent{Action: "create-join-token"}))
	row := hub.Server{Name: name, State: hub.ServerPending, Fingerprint: "FP", CredentialHash: hash}
	w.must(w.db.InsertServer(w.t.Context(), row, join.Hash, hub.AuditEvent{Action: "register-server"}))
	return token
}

// TestAgents holds that a credential names its own server and nobody else.
func TestAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	credential := w.enrol("web-1")
	p, err := w.Authenticate(ctx, credential)
	if err != nil || p != (hub.Principal{Kind: hub.Agent, Name: "web-1"}) {
		t.Errorf("got %+v, %v", p, err)
	}
	again := w.enrol("web-1")
	_, err = w.Authenticate(ctx, credential)
	w.fails(err, hub.ErrUnauthenticated)
	if _, err := w.Authenticate(ctx, again); err != nil {
		t.Error(err)
	}
	changed, err := auth.New(auth.Config{Store: &altered{Store: w.db, server: hub.ServerDisabled}, SigningKey: key, Now: w.clock, Argon2: cheap})
	w.must(err)
	_, err = changed.Authenticate(ctx, again)
	if shown := w.shown(err, hub.ErrUnauthenticated); !strings.Contains(shown.Message, "disabled") {
		t.Errorf("got %q", shown.Message)
	}
}

// TestGit holds who may knock at the Git door under which name.
func TestGit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	credential, other := w.enrol("web-1"), w.enrol("web-2")
	access := w.person("alice", apiv1.RoleViewer).Access
	for _, c := range []struct {
		label, name, secret string
		want                hub.PrincipalKind
	}{
		{"a server", "web-1", credential, hub.Agent},
		{"a person", "alice", access, hub.Person},
		{"another server's credential", "web-1", other, ""},
		{"a server's credential under a person's name", "alice", credential, ""},
		{"a person's token under a server's name", "web-1", access, ""},
		{"a password", "alice", password, ""},
		{"no name", "", credential, ""},
		{"no secret", "web-1", "", ""},
	} {
		t.Run(c.label, func(t *testing.T) {
			p, err := w.AuthenticateGit(t.Context(), c.name, c.secret)
			if c.want != "" {
				if err != nil || p.Kind != c.want || p.Name != c.name {
					t.Errorf("got %+v, %v", p, err)
				}
				return
			}
			w.fails(err, hub.ErrUnauthenticated)
			if p != (hub.Principal{}) {
				t.Errorf("named %+v", p)
			}
		})
	}
}
