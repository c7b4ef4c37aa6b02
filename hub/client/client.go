// Package client talks to the hub's HTTP API, for the agent and the operators' CLI. It imports the standard library
// and apiv1 only.
//
// What it promises: an answer is bounded in size and time, a redirect is never followed to another host, a request
// that is not idempotent is sent once, and no error holds a credential.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/certferry/certferry/hub/apiv1"
)

const (
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 32 << 20
	// defaultTimeout bounds one attempt.
	defaultTimeout = 30 * time.Second
	// defaultAttempts is how often an idempotent request is tried.
	defaultAttempts = 3
	// maxPause bounds the pause between attempts, whatever the hub asks for.
	maxPause = 10 * time.Second
)

// Config says which hub to talk to, and as whom.
type Config struct {
	// BaseURL is the hub's address, such as https://hub.example.com:8443.
	BaseURL string
	// HTTP is used for its transport and timeout; nil for one with a timeout of 30 s. It is copied, and its
	// redirects and cookies are replaced.
	HTTP *http.Client
	// TLS is used where HTTP is nil: the roots that sign the hub's certificate.
	TLS *tls.Config
	// Token answers the credential of each request: an agent's, by Static, or a person's access token. Nil and ""
	// mean none; Session takes precedence where it is set.
	Token func(ctx context.Context) (string, error)
	// Session is a person's stored login. With it, the client refreshes an expired access token by itself.
	Session *Session
	// OnSession is called with each new state of the session, the zero one after a logout, so that it can be stored.
	OnSession func(Session) error
	// UserAgent names the program and its version.
	UserAgent string
	// Attempts is how often an idempotent request is tried; 0 for 3.
	Attempts int
	// Pause waits between attempts; nil for a timer. Tests replace it.
	Pause func(ctx context.Context, d time.Duration) error
}

// Session is a person's login, in the form to store. Both tokens are secrets.
type Session struct {
	AccessToken  string    `json:"access_token"`
	ExpiresAt    time.Time `json:"expires_at"`
	RefreshToken string    `json:"refresh_token"`
	User         string    `json:"user"`
}

// Static answers the same credential for each request.
func Static(credential string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return credential, nil }
}

// Client talks to one hub. It is safe for concurrent use.
type Client struct {
	base      *url.URL
	http      *http.Client
	jar       http.CookieJar
	token     func(context.Context) (string, error)
	onSession func(Session) error
	userAgent string
	attempts  int
	pause     func(context.Context, time.Duration) error

	mu      sync.Mutex // guards session; held while it is refreshed, so that one request refreshes for all
	session *Session
}

// New checks cfg and answers a client. It does not talk to the hub.
func New(cfg Config) (*Client, error) {
	base, err := parseBase(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("make cookie jar: %w", err)
	}
	c := &Client{
		base: base, jar: jar, token: cfg.Token, onSession: cfg.OnSession, userAgent: cfg.UserAgent,
		attempts: cfg.Attempts, pause: cfg.Pause,
	}
	if c.attempts <= 0 {
		c.attempts = defaultAttempts
	}
	if c.pause == nil {
		c.pause = pause
	}
	if c.userAgent == "" {
		c.userAgent = "certferry"
	}
	c.http = httpClient(cfg, jar, base)
	if cfg.Session != nil {
		s := *cfg.Session
		c.session = &s
		c.setRefreshToken(s.RefreshToken)
	}
	return c, nil
}

// parseBase refuses what is not the plain address of a hub.
func parseBase(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		// The error of url.Parse repeats the address, which may hold a password.
		return nil, errors.New("the hub's address is not a URL: it reads like https://hub.example.com:8443")
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return nil, errors.New("the hub's address must start with https:// or http:// and name a host")
	case u.User != nil:
		return nil, errors.New("the hub's address must not hold a user or password")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the hub's address must not hold a query or fragment")
	}
	if strings.Trim(u.Path, "/") != "" {
		return nil, errors.New("the hub's address must not hold a path: the API stands at the root of the host")
	}
	u.Path, u.RawPath = "", ""
	return u, nil
}

func httpClient(cfg Config, jar http.CookieJar, base *url.URL) *http.Client {
	h := http.Client{Timeout: defaultTimeout}
	if cfg.HTTP != nil {
		h = *cfg.HTTP
	} else {
		h.Transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			TLSClientConfig:       cfg.TLS,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: defaultTimeout,
		}
	}
	if h.Timeout == 0 {
		h.Timeout = defaultTimeout
	}
	h.Jar = jar
	h.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		// A credential goes to the hub only, and never from TLS to clear text.
		if req.URL.Host != base.Host || req.URL.Scheme != base.Scheme {
			return errors.New("the hub redirects to another host: check its address")
		}
		if len(via) >= 3 {
			return errors.New("the hub redirects in circles: check its address")
		}
		return nil
	}
	return &h
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// ErrUnreachable means that no answer of the hub came, or not the whole of it.
var ErrUnreachable = errors.New("reach hub")

// Error is an answer of the hub that is not a success.
type Error struct {
	Status  int
	Problem apiv1.Problem
	// RetryAfter is what the hub asked for, or 0.
	RetryAfter time.Duration
}

// Error says what is wrong and where, and the request id to quote.
func (e *Error) Error() string {
	var b strings.Builder
	switch {
	case e.Problem.Detail != "":
		b.WriteString(e.Problem.Detail)
	case e.Problem.Title != "":
		b.WriteString(strings.ToLower(e.Problem.Title))
	default:
		b.WriteString(strings.ToLower(http.StatusText(e.Status)))
	}
	for i, f := range e.Problem.Errors {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep)
		if f.Location != "" {
			b.WriteString(f.Location + ": ")
		}
		b.WriteString(f.Message)
	}
	fmt.Fprintf(&b, " (HTTP %d", e.Status)
	if e.Problem.RequestID != "" {
		b.WriteString(", request " + e.Problem.RequestID)
	}
	b.WriteString(")")
	return b.String()
}

// StatusOf answers the HTTP status of a refused request, or 0 where err is of another kind.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// BaseURL is the hub's address.
func (c *Client) BaseURL() string { return c.base.String() }
