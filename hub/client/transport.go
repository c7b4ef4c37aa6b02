// How a request is sent: credential, bounded answer, retries, refresh.

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/hub/apiv1"
)

// refreshCookies are the names under which the hub keeps the refresh token: over TLS and over clear text.
var refreshCookies = [...]string{"__Secure-rt", "rt"}

const (
	authPath    = "/auth"
	refreshPath = authPath + "/refresh"
	// maxProblem bounds what is read of an error's answer.
	maxProblem = 64 << 10
)

// call is one request.
type call struct {
	method     string
	path       string // below apiv1.Prefix
	query      url.Values
	in         any
	idempotent bool
	// bare sends no credential and never refreshes.
	bare bool
}

func path(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	return c.send(ctx, call{method: http.MethodGet, path: path, query: query, idempotent: true}, out)
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	return c.send(ctx, call{method: http.MethodPost, path: path, in: in}, out)
}

// send sends cl as often as its kind allows and decodes the answer into out unless that is nil.
func (c *Client) send(ctx context.Context, cl call, out any) error {
	var body []byte
	if cl.in != nil {
		var err error
		if body, err = json.Marshal(cl.in); err != nil {
			return fmt.Errorf("encode request %s %s: %w", cl.method, cl.path, err)
		}
	}
	attempts := 1
	if cl.idempotent {
		attempts = c.attempts
	}
	refreshed := false
	for n := 1; ; n++ {
		token, err := c.credential(ctx, cl)
		if err != nil {
			return err
		}
		err = c.once(ctx, cl, token, body, out)
		if err == nil {
			return nil
		}
		if !refreshed && !cl.bare && StatusOf(err) == http.StatusUnauthorized && c.canRefresh() {
			refreshed = true
			if rerr := c.refresh(ctx, token); rerr != nil {
				return rerr
			}
			n--
			continue
		}
		if n >= attempts || !retryable(ctx, err) {
			return err
		}
		if perr := c.pause(ctx, backoff(n, err)); perr != nil {
			return err
		}
	}
}

// credential answers the token of one request.
func (c *Client) credential(ctx context.Context, cl call) (string, error) {
	if cl.bare {
		return "", nil
	}
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		return s.AccessToken, nil
	}
	if c.token == nil {
		return "", nil
	}
	t, err := c.token(ctx)
	if err != nil {
		return "", fmt.Errorf("read credential: %w", err)
	}
	return t, nil
}

// once sends one request.
func (c *Client) once(ctx context.Context, cl call, token string, body []byte, out any) error {
	req, err := c.request(ctx, cl, token, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, plainURLError(err))
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return problem(res)
	}
	if out == nil || res.StatusCode == http.StatusNoContent {
		return nil
	}
	if raw, ok := out.(*[]byte); ok { // a table, which is no JSON
		*raw, err = io.ReadAll(io.LimitReader(res.Body, maxTable))
		return err
	}
	return decode(res, out)
}

// maxTable bounds a table, in bytes.
const maxTable = 256 << 20

func (c *Client) request(ctx context.Context, cl call, token string, body []byte) (*http.Request, error) {
	target := c.base.String() + apiv1.Prefix + cl.path
	if len(cl.query) > 0 {
		target += "?" + cl.query.Encode()
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, cl.method, target, r)
	if err != nil {
		return nil, fmt.Errorf("make request %s %s: %w", cl.method, cl.path, err)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	req.Header.Set("User-Agent", c.userAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// plainURLError drops the URL, which says nothing that the caller does not know, and keeps what went wrong.
func plainURLError(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

func decode(res *http.Response, out any) error {
	if !isJSON(res) {
		return errors.New("the answer is not of a Certferry hub: check the address")
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%w: read answer: %w", ErrUnreachable, err)
	}
	if len(data) > maxAnswer {
		return fmt.Errorf("read answer: more than %d bytes", maxAnswer)
	}
	if err := json.Unmarshal(data, out); err != nil {
		// The text of a JSON error may quote the answer, and the answer may be a credential.
		return errors.New("the hub's answer cannot be read: do hub and client have versions that fit?")
	}
	return nil
}

func isJSON(res *http.Response) bool {
	t, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// problem reads an answer that is not a success.
func problem(res *http.Response) error {
	e := &Error{Status: res.StatusCode, RetryAfter: retryAfter(res.Header.Get("Retry-After"))}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err == nil && isJSON(res) {
		// What is not a problem document leaves the status, which says enough.
		_ = json.Unmarshal(data, &e.Problem)
	}
	return e
}

// retryAfter understands seconds only, which is what the hub sends.
func retryAfter(v string) time.Duration {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > 86400 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// retryable says whether the next attempt may go better.
func retryable(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	switch StatusOf(err) {
	case 0:
		// An answer that came but cannot be read stays so.
		return errors.Is(err, ErrUnreachable)
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// backoff is what the hub asked for, else 250 ms, 1 s, 4 s and so on.
func backoff(n int, err error) time.Duration {
	d := 250 * time.Millisecond << (2 * min(n-1, 3))
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		d = e.RetryAfter
	}
	return min(d, maxPause)
}
