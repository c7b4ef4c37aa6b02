// This file is the way to a remote: one conversation with git-upload-pack or git-receive-pack, over smart HTTP
// (gitprotocol-http) or ssh (gitprotocol-pack), and what can go wrong on that way.

package gitrepo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Errors that callers tell apart, beside ErrCorrupt and ErrStale.
var (
	// ErrTooLarge: the remote sent more than the limits allow.
	ErrTooLarge = errors.New("too large")
	// ErrDenied: the remote does not accept the credential, or not for this repository.
	ErrDenied = errors.New("access denied")
	// ErrUnreachable: no connection, or one that broke.
	ErrUnreachable = errors.New("remote is unreachable")
	// ErrSlow: the remote did not finish within Limits.Timeout.
	ErrSlow = errors.New("remote is too slow")
	// ErrHostKey: the ssh server or the TLS certificate is not the one that is trusted.
	ErrHostKey = errors.New("remote cannot prove who it is")
	// ErrNoRepository: there is no repository at the remote's URL.
	ErrNoRepository = errors.New("no repository there")
	// ErrReadOnly: the remote takes no pushes.
	ErrReadOnly = errors.New("remote is read-only")
	// ErrFull: the remote has no room left.
	ErrFull = errors.New("remote is full")
	// ErrRejected: the remote refuses a reference, by a hook or a rule of its own.
	ErrRejected = errors.New("remote refuses the push")
	// ErrNotAtomic: the remote cannot move references all or none.
	ErrNotAtomic = errors.New("remote does not push atomically")
)

const (
	uploadPack  = "git-upload-pack"
	receivePack = "git-receive-pack"
	userAgent   = "certferry"
	// maxLine is the longest pkt-line (gitprotocol-common).
	maxLine = 65520
)

// RetryAfter returns how long a remote that gave err asks to be left alone; zero where it did not say.
func RetryAfter(err error) time.Duration {
	if busy, ok := errors.AsType[*busyError](err); ok {
		return busy.after
	}
	return 0
}

// busyError is an answer that asks for patience.
type busyError struct {
	status int
	after  time.Duration
}

// Error implements error.
func (e *busyError) Error() string {
	return fmt.Sprintf("the remote answered with status %d", e.status)
}

// Unwrap makes it an ErrUnreachable: what passes by itself.
func (e *busyError) Unwrap() error { return ErrUnreachable }

// wire is one conversation with a program of the remote. Over HTTP each request is a conversation of its own.
type wire interface {
	// greeting is what the program says first.
	greeting() io.Reader
	// ask sends a request of size bytes and returns the answer.
	ask(ctx context.Context, body io.Reader, size int64) (io.Reader, error)
	// close ends the conversation. What the program said beside its answer, for people, is added to a fault.
	close(fault error) error
}

// connect starts a conversation with service. v2 asks for protocol version 2, which the remote need not speak.
func (r *Remote) connect(ctx context.Context, service string, v2 bool) (wire, error) {
	if r.overSSH() {
		return r.connectSSH(ctx, service, v2)
	}
	header := http.Header{}
	if v2 {
		header.Set("Git-Protocol", "version=2")
	}
	answer, err := r.do(ctx, http.MethodGet, "/info/refs?service="+service, header, nil, 0) //nolint:bodyclose // the wire closes it
	if err != nil {
		return nil, err
	}
	w := &httpWire{remote: r, service: service, header: header, bodies: []io.Closer{answer.Body}}
	if w.first, err = skipService(answer.Body, service); err != nil {
		return nil, errors.Join(err, w.close(nil))
	}
	return w, nil
}

// httpWire is a conversation over smart HTTP.
type httpWire struct {
	remote  *Remote
	service string
	header  http.Header
	first   io.Reader
	bodies  []io.Closer
}

func (w *httpWire) greeting() io.Reader { return w.first }

func (w *httpWire) ask(ctx context.Context, body io.Reader, size int64) (io.Reader, error) {
	header := maps.Clone(w.header)
	header.Set("Content-Type", "application/x-"+w.service+"-request")
	header.Set("Accept", "application/x-"+w.service+"-result")
	answer, err := w.remote.do(ctx, http.MethodPost, "/"+w.service, header, body, size) //nolint:bodyclose // close closes it
	if err != nil {
		return nil, err
	}
	w.bodies = append(w.bodies, answer.Body)
	return bufio.NewReaderSize(answer.Body, 32<<10), nil
}

func (w *httpWire) close(fault error) error {
	for _, b := range w.bodies {
		_ = b.Close() // all that matters was read
	}
	return fault
}

// skipService reads the line that names the service and the flush behind it; protocol v2 may leave both out.
func skipService(body io.Reader, service string) (io.Reader, error) {
	body = bufio.NewReaderSize(body, 32<<10) // lines are short, and there may be a hundred thousand
	want := pkt("# service=" + service + "\n")
	head := make([]byte, len(want))
	n, err := io.ReadFull(body, head)
	switch {
	case string(head[:n]) == want:
		var flush [4]byte
		if _, err := io.ReadFull(body, flush[:]); err != nil || string(flush[:]) != "0000" {
			return nil, errors.New("the remote does not speak Git's smart HTTP: check its URL")
		}
		return body, nil
	case bytes.HasPrefix(head[:n], []byte(pkt("version 2\n"))):
		return io.MultiReader(bytes.NewReader(head[:n]), body), nil
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
		return nil, err
	}
	return nil, errors.New("the remote does not speak Git's smart HTTP: check its URL")
}

// do sends one request. An answer other than 200 and 304 is an error; answer is not nil then where its headers count.
func (r *Remote) do(ctx context.Context, method, path string, header http.Header, body io.Reader, size int64) (*http.Response, error) {
	if !strings.HasPrefix(r.URL, "https://") && !strings.HasPrefix(r.URL, "http://") {
		return nil, errors.New("the remote's URL must start with https:// or ssh://")
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(r.URL, "/")+path, body)
	if err != nil {
		return nil, errors.New("the remote's URL is not valid")
	}
	if req.URL.User != nil {
		return nil, errors.New("the remote's URL must not hold credentials")
	}
	if size > 0 {
		req.ContentLength = size // many servers do not take a body of unknown length
	}
	maps.Copy(req.Header, header)
	req.Header.Set("User-Agent", userAgent)
	password := r.Password
	if r.PasswordFile != "" {
		if password, err = readSecret(r.PasswordFile); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDenied, err)
		}
	}
	if password != "" {
		req.SetBasicAuth(r.Username, password)
	}
	c := http.Client{}
	if r.HTTP != nil {
		c = *r.HTTP
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := c.Do(req)
	if err != nil {
		return nil, connectionFault(ctx, err)
	}
	if answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusNotModified {
		return answer, nil
	}
	_ = answer.Body.Close()
	return answer, statusFault(answer)
}

// forbiddenError is an ErrDenied for somebody whom the remote knows.
type forbiddenError struct{}

// Error implements error.
func (*forbiddenError) Error() string { return ErrDenied.Error() }

// Unwrap makes it an ErrDenied.
func (*forbiddenError) Unwrap() error { return ErrDenied }

// statusFault says what an answer without success means.
func statusFault(answer *http.Response) error {
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		return ErrDenied
	case http.StatusForbidden:
		return &forbiddenError{}
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return errors.New("the remote redirects, which is not followed: set its final URL")
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%w: the remote answered with status %d; check its URL and what the account may see", ErrNoRepository, answer.StatusCode)
	case http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: the remote does not take a request of this size (status 413); raise its limit", ErrRejected)
	case http.StatusInsufficientStorage:
		return fmt.Errorf("%w (status 507)", ErrFull)
	}
	if answer.StatusCode >= http.StatusInternalServerError || answer.StatusCode == http.StatusTooManyRequests {
		return &busyError{answer.StatusCode, retryAfter(answer)}
	}
	return fmt.Errorf("the remote answered with status %d", answer.StatusCode)
}

// connectionFault sorts the faults of a connection. The text of an HTTP client's error holds the URL, which a log
// need not repeat.
func connectionFault(ctx context.Context, err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	var unknown *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), classified(err):
		return err
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrSlow, context.DeadlineExceeded)
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// classified says whether err is of one of the classes already.
func classified(err error) bool {
	for _, class := range []error{
		ErrDenied, ErrUnreachable, ErrSlow, ErrHostKey, ErrNoRepository, ErrReadOnly, ErrFull, ErrRejected, ErrNotAtomic,
		ErrTooLarge, ErrCorrupt, ErrStale, ErrInvalid,
	} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// retryAfter reads the header of RFC 9110 §10.2.3, in seconds or as a date, an hour at most.
func retryAfter(answer *http.Response) time.Duration {
	if answer == nil {
		return 0
	}
	text := answer.Header.Get("Retry-After")
	if at, err := http.ParseTime(text); err == nil {
		// The remote's own clock is the one that its date is meant by.
		sent, err := http.ParseTime(answer.Header.Get("Date"))
		if err != nil {
			return 0
		}
		return min(max(at.Sub(sent), 0), time.Hour)
	}
	seconds, err := strconv.Atoi(text)
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

// packet is what a pkt-line is: a line, or a mark between lines.
type packet int

const (
	aLine packet = iota
	aFlush
	aDelimiter
)

// pktReader reads pkt-lines up to a number of bytes. Unlike a buffered reader it takes nothing beyond what it
// returns, so that a conversation can go on with another one.
type pktReader struct {
	r    io.Reader
	left int64
	buf  []byte
}

func newPktReader(r io.Reader, limit int64) *pktReader {
	return &pktReader{r: r, left: limit, buf: make([]byte, 0, 1024)}
}

// next returns the next line without its length; it is good until the next call. The end of the stream between two
// lines is io.EOF.
func (p *pktReader) next() ([]byte, packet, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return nil, 0, err
	}
	size, err := strconv.ParseUint(string(head[:]), 16, 16)
	if p.left -= int64(len(head)); err != nil || size == 2 || size == 3 || size > maxLine {
		return nil, 0, errors.New("the remote does not speak Git: a line has a bad length")
	}
	switch size {
	case 0:
		return nil, aFlush, nil
	case 1:
		return nil, aDelimiter, nil
	}
	n := int(size) - len(head)
	if p.left -= int64(n); p.left < 0 {
		return nil, 0, fmt.Errorf("%w: the answer is longer than allowed", ErrTooLarge)
	}
	if cap(p.buf) < n {
		p.buf = make([]byte, 0, maxLine)
	}
	line := p.buf[:n]
	if _, err := io.ReadFull(p.r, line); err != nil {
		return nil, 0, io.ErrUnexpectedEOF
	}
	return line, aLine, nil
}

// text returns the next line as text, without its newline. ok is false at a flush, which ends a list.
func (p *pktReader) text() (line string, ok bool, err error) {
	data, kind, err := p.next()
	if err != nil || kind == aFlush {
		return "", false, err
	}
	if bytes.HasPrefix(data, []byte("ERR ")) {
		return "", false, serverFault(string(data[len("ERR "):]))
	}
	return strings.TrimSuffix(string(data), "\n"), true, nil
}

// said makes what a remote says fit for a log: printable, on one line, and short.
func said(text string) string {
	const limit = 300
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }), " ")
	if runes := []rune(strings.TrimSpace(text)); len(runes) > limit {
		return string(runes[:limit]) + "…"
	}
	return strings.TrimSpace(text)
}

// serverFault sorts what git and the hosts say when they refuse.
func serverFault(text string) error {
	low := strings.ToLower(text)
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(low, p) {
				return true
			}
		}
		return false
	}
	class := ErrRejected
	switch {
	case has("no space left", "disk full", "quota", "unable to write", "disk space", "file too large"):
		class = ErrFull
	case has("does not appear to be a git repository", "not found", "does not exist", "not a git repository"):
		class = ErrNoRepository
	case has("read-only", "read only", "readonly", "archived"):
		class = ErrReadOnly
	case has("permission denied", "permission to ", "access denied", "not allowed", "not authorized", "unauthorized", "forbidden", "not permitted"):
		class = ErrDenied
	}
	return fmt.Errorf("%w: the remote says: %s", class, said(text))
}
