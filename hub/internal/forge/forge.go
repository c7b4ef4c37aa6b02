// Package forge tells Git hosts what became of a commit: a commit status, which the host shows beside the commit and
// in the pull requests that hold it.
//
// GitHub, GitLab and Gitea (Forgejo speaks the same API) are known. A status is news and no more: what counts stands
// on main, in the audit history and in alerts, so that a host which cannot be told loses nothing.
package forge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Kind is the software of a Git host.
type Kind string

// The hosts that are known.
const (
	GitHub Kind = "github"
	GitLab Kind = "gitlab"
	Gitea  Kind = "gitea" // and Forgejo
)

// State is how a commit fared.
type State string

// States of a commit; each host has a word of its own for some of them.
const (
	Pending State = "pending"
	Success State = "success"
	Failure State = "failure"
)

// Context is the name under which a host lists the hub's status beside those of others.
const Context = "certferry"

// MaxDescription bounds a description, in characters: GitHub takes no more.
const MaxDescription = 140

const (
	// timeout bounds one request.
	timeout = 20 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
	// maxToken bounds the token file, in bytes.
	maxToken = 4 << 10
	// maxWait bounds a wait that a host asks for; the loop that calls tries again later anyway.
	maxWait = 2 * time.Minute
)

// Config is a repository on a Git host.
type Config struct {
	Kind Kind
	// API is the base URL: https://HOST/api/v4 for GitLab, https://HOST/api/v1 for Gitea; empty for the public service
	// of GitHub or GitLab. https is a must beyond loopback, as the token goes with each request.
	API string
	// Repository is owner/name, on GitLab with all groups.
	Repository string
	// TokenFile holds the access token. It is read for each status, so that a new one counts at once.
	TokenFile string
	// CAFile holds the PEM certificates that the host's must chain to; empty for those of the system.
	CAFile string
}

// Status is what a commit is shown with.
type Status struct {
	// Commit has 40 hex digits.
	Commit string
	State  State
	// Description is one line; what is beyond MaxDescription is cut.
	Description string
	// TargetURL is where the host's page leads to; it may be empty.
	TargetURL string
}

// Client sets statuses in one repository.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
	// attempts and delay are how often a request is made and what the first pause is; it doubles.
	attempts int
	delay    time.Duration
}

// New checks cfg. It does not ask the host.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, attempts: 4, delay: 2 * time.Second}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("set up commit statuses: %w", err)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: timeout, MaxIdleConns: 2, IdleConnTimeout: time.Minute}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("set up commit statuses: read ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, errors.New("set up commit statuses: ca_file holds no certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c.http = &http.Client{
		Timeout: timeout, Transport: transport,
		// A redirect could lead the token to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// check says what is wrong with the configuration; its keys are those of the file.
func (c *Client) check() (err error) {
	defaults := map[Kind]string{GitHub: "https://api.github.com", GitLab: "https://gitlab.com/api/v4", Gitea: ""}
	api, known := defaults[c.cfg.Kind]
	if !known {
		return errors.New("kind: must be github, gitlab or gitea")
	}
	if c.cfg.API != "" {
		api = c.cfg.API
	}
	if api == "" {
		return errors.New("api: must be the URL of the API, such as https://git.example.com/api/v1")
	}
	c.base, err = url.Parse(strings.TrimRight(api, "/"))
	if err != nil || c.base.Host == "" || c.base.User != nil || c.base.RawQuery != "" || c.base.Fragment != "" {
		return errors.New("api: must be a URL such as https://git.example.com/api/v1")
	}
	if c.base.Scheme != "https" && (c.base.Scheme != "http" || !loopback(c.base.Hostname())) {
		return errors.New("api: must start with https://")
	}
	parts := strings.Split(c.cfg.Repository, "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "\\?#% ") {
			return errors.New("repository: must be owner/name")
		}
	}
	if len(parts) < 2 || len(parts) > 2 && c.cfg.Kind != GitLab {
		return errors.New("repository: must be owner/name")
	}
	if c.cfg.TokenFile == "" {
		return errors.New("token_file: is missing")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Ready says what is wrong with the token's file, so that a mistake shows early. It does not ask the host.
func (c *Client) Ready() error {
	_, err := c.token()
	return err
}

// Set sets the status of a commit. What may pass is tried again, with pauses that grow or that the host asks for.
func (c *Client) Set(ctx context.Context, s Status) error {
	pause := c.delay
	for attempt := 1; ; attempt++ {
		wait, err := c.try(ctx, s)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("set status of commit %s at %s: %w", s.Commit[:min(7, len(s.Commit))], c.base.Host, err)
		if wait < 0 || attempt == c.attempts {
			return err
		}
		timer := time.NewTimer(max(pause, wait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(err, ctx.Err())
		}
		pause *= 2
	}
}

// try makes one request. A negative wait means that another would fare no better.
func (c *Client) try(ctx context.Context, s Status) (wait time.Duration, err error) {
	token, err := c.token()
	if err != nil {
		return -1, err
	}
	request, err := c.request(ctx, s, token)
	if err != nil {
		return -1, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return -1, err
		}
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, fmt.Errorf("read answer: %w", err)
	}
	if response.StatusCode == http.StatusCreated || response.StatusCode == http.StatusOK || c.isSet(s.State, response, answer) {
		return 0, nil
	}
	return verdict(response), refusal(response, answer, token)
}

// token reads the token anew, and refuses a file that others may read.
func (c *Client) token() (string, error) {
	info, err := os.Stat(c.cfg.TokenFile)
	if err != nil {
		return "", fmt.Errorf("read token_file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("read token_file %s: others may read it: chmod 600 it", c.cfg.TokenFile)
	}
	if info.Size() > maxToken {
		return "", fmt.Errorf("read token_file %s: it is too large to be one", c.cfg.TokenFile)
	}
	data, err := os.ReadFile(c.cfg.TokenFile)
	if err != nil {
		return "", fmt.Errorf("read token_file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("read token_file %s: it must hold one token on one line", c.cfg.TokenFile)
	}
	return token, nil
}

// request writes what each host's documentation asks for.
func (c *Client) request(ctx context.Context, s Status, token string) (*http.Request, error) {
	body := map[string]string{"context": Context, "description": shorten(s.Description), "state": string(s.State)}
	if s.TargetURL != "" {
		body["target_url"] = s.TargetURL
	}
	path, header := "/repos/"+c.cfg.Repository+"/statuses/"+s.Commit, http.Header{}
	switch c.cfg.Kind {
	case GitHub:
		// GitHub REST API, "Commit statuses: Create a commit status": POST /repos/{owner}/{repo}/statuses/{sha}.
		header.Set("Authorization", "Bearer "+token)
		header.Set("Accept", "application/vnd.github+json")
		header.Set("X-GitHub-Api-Version", "2022-11-28")
	case Gitea:
		// Gitea API, repoCreateStatus: POST /repos/{owner}/{repo}/statuses/{sha} with a CreateStatusOption.
		header.Set("Authorization", "token "+token)
		header.Set("Accept", "application/json")
	case GitLab:
		// GitLab REST API, "Commits: Set commit pipeline status": POST /projects/:id/statuses/:sha, where :id is the
		// URL-encoded path of the project, the context is called name too, and failure is failed.
		path = "/projects/" + url.PathEscape(c.cfg.Repository) + "/statuses/" + s.Commit
		header.Set("PRIVATE-TOKEN", token)
		body["name"] = Context
		delete(body, "context")
		if s.State == Failure {
			body["state"] = "failed"
		}
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	header.Set("Content-Type", "application/json")
	header.Set("User-Agent", "certferry-hub")
	r.Header = header
	return r, nil
}

// isSet knows GitLab's way of saying that a commit has this status already, or one that comes after it: its states are
// steps of a pipeline, and a step to where one stands is refused.
func (c *Client) isSet(want State, r *http.Response, answer []byte) bool {
	if c.cfg.Kind != GitLab || r.StatusCode != http.StatusBadRequest {
		return false
	}
	there := map[State]string{Pending: "via :enqueue", Success: "from :success", Failure: "from :failed"}[want]
	return bytes.Contains(answer, []byte("Cannot transition status")) && bytes.Contains(answer, []byte(there))
}

// verdict says whether to try again, and when.
func verdict(r *http.Response) time.Duration {
	wait := retryAfter(r)
	switch {
	case r.StatusCode == http.StatusTooManyRequests, r.StatusCode >= 500:
		return wait
	case r.StatusCode == http.StatusForbidden && wait > 0: // GitHub's secondary rate limit
		return wait
	}
	return -1
}

// retryAfter reads the header of that name in seconds (RFC 9110 §10.2.3).
func retryAfter(r *http.Response) time.Duration {
	seconds, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxWait)
}

// refusal says what the host answered and what to do about it. What the host writes never brings the token back.
func refusal(r *http.Response, answer []byte, token string) error {
	text := fmt.Sprintf("the host answered %d", r.StatusCode)
	var said struct {
		Message any `json:"message"`
	}
	if json.Unmarshal(answer, &said) == nil && said.Message != nil {
		text += ": " + shorten(strings.ReplaceAll(fmt.Sprint(said.Message), token, "…"))
	}
	switch r.StatusCode {
	case http.StatusUnauthorized:
		text += " (the token is not valid: put a new one into token_file)"
	case http.StatusForbidden:
		text += " (the token may not set commit statuses: give it that right)"
	case http.StatusNotFound:
		text += " (check api and repository, and that the token may see the repository)"
	}
	if r.StatusCode >= 300 && r.StatusCode < 400 {
		text += " (it redirects, which is not followed: write the final URL into api)"
	}
	return errors.New(text)
}

// shorten keeps the first line within MaxDescription printable characters.
func shorten(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	runes := []rune(strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, text))
	if len(runes) > MaxDescription {
		return string(runes[:MaxDescription-1]) + "…"
	}
	return string(runes)
}
