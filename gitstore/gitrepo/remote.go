// This file asks a remote over smart HTTP what a reference is at: one small request, answered with 304 by the hub when
// nothing changed. A foreign server is asked by protocol v2 for the one reference (gitprotocol-v2, "ls-refs").

package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
)

// Errors that callers may tell apart.
var (
	// ErrDenied: the remote does not accept the credential, or not for this repository.
	ErrDenied = errors.New("access denied")
	// ErrTooLarge: the remote sent more than the limits allow.
	ErrTooLarge = errors.New("too large")
)

// Limits bound what is taken from a remote, whatever it sends.
type Limits struct {
	// PackBytes bounds what is received, InflatedBytes the objects in it, in bytes.
	PackBytes     int64
	InflatedBytes int64
	// Objects bounds their number.
	Objects int
	// Timeout bounds one whole request.
	Timeout time.Duration
}

// DefaultLimits fit a server with a few hundred certificates.
var DefaultLimits = Limits{PackBytes: 16 << 20, InflatedBytes: 32 << 20, Objects: 1000, Timeout: time.Minute}

const (
	// maxAdvertisement bounds the answer to a poll, in bytes: about ten thousand references.
	maxAdvertisement = 1 << 20
	userAgent        = "certferry"
)

// Remote is a repository behind smart HTTP. It follows no redirect and is safe for concurrent use.
type Remote struct {
	// URL of the repository, http or https, without credentials.
	URL string
	// Username and Password are sent as Basic authentication where Password is set.
	Username string
	Password string
	// HTTP is used for its transport; nil for the default one.
	HTTP   *http.Client
	Limits Limits
}

// Tip is what a reference is at.
type Tip struct {
	// Hash is zero where the reference does not exist.
	Hash Hash
	// ETag is for the next Poll, empty where the remote gives none.
	ETag string
	// NotModified says that nothing changed since the poll that gave the etag; Hash is zero then.
	NotModified bool
	// RetryAfter is how long the remote asks to be left alone.
	RetryAfter time.Duration
}

// Poll asks what ref is at. An etag of an earlier Poll makes the answer empty where nothing changed.
func (r *Remote) Poll(ctx context.Context, ref, etag string) (Tip, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Limits.Timeout)
	defer cancel()
	header := http.Header{"Git-Protocol": {"version=2"}}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	answer, err := r.do(ctx, http.MethodGet, "/info/refs?service=git-upload-pack", header, nil)
	tip := Tip{RetryAfter: retryAfter(answer)}
	if err != nil {
		return tip, fmt.Errorf("poll remote: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode == http.StatusNotModified {
		tip.NotModified, tip.ETag = true, etag
		return tip, nil
	}
	body, err := readCapped(answer.Body, maxAdvertisement)
	if err != nil {
		return tip, fmt.Errorf("poll remote: read references: %w", err)
	}
	lines, err := advertised(body)
	if err != nil {
		return tip, fmt.Errorf("poll remote: %w", err)
	}
	if len(lines) > 0 && lines[0] == "version 2" {
		tip.Hash, err = r.lsRefs(ctx, ref)
	} else {
		tip.ETag = answer.Header.Get("ETag")
		tip.Hash, err = findRef(lines, ref)
	}
	if err != nil {
		return tip, fmt.Errorf("poll remote: %w", err)
	}
	return tip, nil
}

// lsRefs asks a server of protocol v2 for one reference.
func (r *Remote) lsRefs(ctx context.Context, ref string) (Hash, error) {
	var body bytes.Buffer
	body.WriteString(pkt("command=ls-refs\n") + "0001" + pkt("ref-prefix "+ref+"\n") + "0000")
	header := http.Header{
		"Git-Protocol": {"version=2"}, "Content-Type": {"application/x-git-upload-pack-request"},
		"Accept": {"application/x-git-upload-pack-result"},
	}
	answer, err := r.do(ctx, http.MethodPost, "/git-upload-pack", header, &body)
	if err != nil {
		return Hash{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := readCapped(answer.Body, maxAdvertisement)
	if err != nil {
		return Hash{}, fmt.Errorf("read references: %w", err)
	}
	lines, err := pktLines(data)
	if err != nil {
		return Hash{}, err
	}
	return findRef(lines, ref)
}

// do sends one request. An answer other than 200 and 304 is an error; answer is not nil then where its headers count.
func (r *Remote) do(ctx context.Context, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	if !strings.HasPrefix(r.URL, "https://") && !strings.HasPrefix(r.URL, "http://") {
		return nil, errors.New("the remote's URL must start with https:// or http://")
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(r.URL, "/")+path, body)
	if err != nil {
		return nil, errors.New("the remote's URL is not valid")
	}
	if req.URL.User != nil {
		return nil, errors.New("the remote's URL must not hold credentials")
	}
	maps.Copy(req.Header, header)
	req.Header.Set("User-Agent", userAgent)
	if r.Password != "" {
		req.SetBasicAuth(r.Username, r.Password)
	}
	c := http.Client{}
	if r.HTTP != nil {
		c = *r.HTTP
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusNotModified {
		return answer, nil
	}
	_ = answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return answer, ErrDenied
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return answer, errors.New("the remote redirects, which is not followed: set its final URL")
	default:
		return answer, fmt.Errorf("the remote answered with status %d", answer.StatusCode)
	}
}

// retryAfter reads the header of RFC 9110 §10.2.3 as seconds, an hour at most.
func retryAfter(answer *http.Response) time.Duration {
	if answer == nil {
		return 0
	}
	seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, time.Hour)
}

// readCapped reads to the end, ErrTooLarge beyond limit.
func readCapped(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return data, nil
}

// pkt encodes one line (gitprotocol-common, "pkt-line").
func pkt(line string) string { return fmt.Sprintf("%04x%s", len(line)+4, line) }

// pktLines splits data into lines without their newline, up to the first flush after at least one line.
func pktLines(data []byte) ([]string, error) {
	scanner := pktline.NewScanner(bytes.NewReader(data))
	var lines []string
	for scanner.Scan() {
		line := scanner.Bytes()
		if len(line) == 0 {
			if len(lines) > 0 {
				return lines, nil
			}
			continue
		}
		lines = append(lines, strings.TrimSuffix(string(line), "\n"))
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("the remote does not speak Git: %w", err)
	}
	return lines, nil
}

// advertised returns the lines of an advertisement without the line that names the service.
func advertised(body []byte) ([]string, error) {
	service := pkt("# service=git-upload-pack\n")
	rest, ok := bytes.CutPrefix(body, []byte(service))
	if !ok && !bytes.HasPrefix(body, []byte(pkt("version 2\n"))) {
		return nil, errors.New("the remote does not speak Git's smart HTTP: check its URL")
	}
	return pktLines(rest)
}

// findRef finds ref in lines of "hash name", zero where it is not there.
func findRef(lines []string, ref string) (Hash, error) {
	for _, line := range lines {
		line, _, _ = strings.Cut(line, "\x00")
		hash, name, ok := strings.Cut(line, " ")
		if !ok || name != ref {
			continue
		}
		h, err := ParseHash(hash)
		if err != nil {
			return Hash{}, fmt.Errorf("read references: %w", err)
		}
		return h, nil
	}
	return Hash{}, nil
}
