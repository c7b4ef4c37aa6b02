// Errors on the wire: the one place where classes of errors become status codes, and where what a caller sent is kept
// out of what it gets back.

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
)

// maxFaults bounds the faults of one problem document.
const maxFaults = 50

// problem is an apiv1.Problem that huma can write. Its name is the name of the schema in the OpenAPI document.
type problem struct {
	apiv1.Problem

	header http.Header
}

// Error implements error and huma.StatusError.
func (p *problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *problem) GetHeaders() http.Header { return p.header }

// ContentType implements huma.ContentTypeFilter.
func (*problem) ContentType(string) string { return "application/problem+json" }

// sentences say what is wrong where nothing better is known, and what to do next.
var sentences = map[int]string{
	http.StatusBadRequest:            "the request body is missing or is not valid JSON",
	http.StatusUnauthorized:          "log in first, or give a valid credential",
	http.StatusForbidden:             "this account may not do that",
	http.StatusNotFound:              "there is nothing here: check path and name",
	http.StatusMethodNotAllowed:      "this path does not take that method",
	http.StatusRequestTimeout:        "the request body came too slowly: send it again",
	http.StatusConflict:              "the object's present state does not allow this",
	http.StatusRequestEntityTooLarge: "the request body is larger than 1 MiB",
	http.StatusUnsupportedMediaType:  "send the body as application/json",
	http.StatusUnprocessableEntity:   "the request has faults: mend them and send it again",
	http.StatusTooManyRequests:       "too many attempts: wait, then try again",
	http.StatusInternalServerError:   "something went wrong inside the hub: its log has the reason under this request id",
	http.StatusServiceUnavailable:    "the hub is busy or not ready: try again in a moment",
}

// classes maps the classes of errors to status codes.
var classes = []struct {
	class  error
	status int
}{
	{hub.ErrInvalid, http.StatusUnprocessableEntity},
	{hub.ErrUnauthenticated, http.StatusUnauthorized},
	{hub.ErrForbidden, http.StatusForbidden},
	{hub.ErrNotFound, http.StatusNotFound},
	{hub.ErrConflict, http.StatusConflict},
	{hub.ErrThrottled, http.StatusTooManyRequests},
	{context.DeadlineExceeded, http.StatusServiceUnavailable},
	{context.Canceled, http.StatusServiceUnavailable},
}

func statusOf(err error) int {
	for _, c := range classes {
		if errors.Is(err, c.class) {
			return c.status
		}
	}
	return http.StatusInternalServerError
}

// newProblem answers a problem with the standard sentence.
func newProblem(status int, requestID string) *problem {
	return &problem{
		Problem: apiv1.Problem{
			Title: http.StatusText(status), Status: status, Detail: sentences[status], RequestID: requestID,
		},
		header: http.Header{},
	}
}

// problemOf is what the caller may know of err.
func problemOf(err error, requestID string) *problem {
	p := newProblem(statusOf(err), requestID)
	var e *hub.Error
	if p.Status < http.StatusInternalServerError && errors.As(err, &e) {
		p.Detail = e.Message
		for _, f := range e.Faults {
			p.Errors = append(p.Errors, apiv1.ProblemFault{Location: f.Location, Message: f.Message})
		}
		if e.RetryAfter > 0 {
			p.header.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
		}
	}
	switch p.Status {
	case http.StatusUnauthorized:
		p.header.Set("WWW-Authenticate", `Bearer realm="certferry"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if p.header.Get("Retry-After") == "" {
			p.header.Set("Retry-After", "1")
		}
	}
	return p
}

// invalid is an error about one place of the request.
func invalid(location, message string) error {
	return &hub.Error{
		Class: hub.ErrInvalid, Message: sentences[http.StatusUnprocessableEntity],
		Faults: []hub.Fault{{Location: location, Message: message}},
	}
}

// overrideHuma makes huma write our problems. Its hooks are variables of its package, so this is done once.
var overrideHuma = sync.OnceFunc(func() {
	huma.DefaultArrayNullable = false
	huma.NewError = func(status int, _ string, errs ...error) huma.StatusError {
		return fromHuma("", status, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, _ string, errs ...error) huma.StatusError {
		return fromHuma(callOf(ctx.Context()).requestID, status, errs)
	}
})

// fromHuma turns what huma found wrong into a problem. Huma's own texts and details hold submitted values; what is
// taken over is the place, and a message that is about the schema only.
func fromHuma(requestID string, status int, errs []error) *problem {
	p := newProblem(status, requestID)
	for _, err := range errs {
		var d *huma.ErrorDetail
		if !errors.As(err, &d) || status == http.StatusBadRequest || status == http.StatusUnsupportedMediaType {
			continue
		}
		message := d.Message
		if _, raw := d.Value.(string); raw && d.Location == "body" {
			// The text is of encoding/json, and quotes the body.
			message = "a value has the wrong type or is out of range"
		}
		p.Errors = append(p.Errors, apiv1.ProblemFault{Location: cleanLocation(d.Location), Message: message})
		if len(p.Errors) == maxFaults {
			break
		}
	}
	return p
}

// location matches places whose keys read like keys of this API; a submitted key may be anything.
var location = regexp.MustCompile(`^(body|path|query|header)(\.[a-z][a-z0-9_]{0,39}|\[[0-9]{1,6}\])*$`)

// cleanLocation names the innermost place that can be named.
func cleanLocation(l string) string {
	for l != "" && !location.MatchString(l) {
		l = l[:max(0, strings.LastIndexAny(l, ".["))]
	}
	return l
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, p *problem) {
	maps.Copy(w.Header(), p.header)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	body, err := json.Marshal(p)
	if err != nil {
		// Strings and numbers only: this cannot happen.
		body = []byte("{}")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

// fail turns a handler's error into what the caller gets; what is our own fault goes to the log.
func (s *server) fail(ctx context.Context, c *call, err error) *problem {
	p := problemOf(err, c.requestID)
	switch {
	case p.Status >= http.StatusInternalServerError:
		s.logFault(ctx, c, err)
	case isDenial(p.Status):
		p = s.refuse(ctx, c, "", p)
	}
	if p.Status == http.StatusUnauthorized && c.operation == "refresh" {
		// A browser should not send a useless token again.
		gone := s.cookie(auth.Login{})
		p.header.Set("Set-Cookie", gone.String())
	}
	return p
}

// refuse answers a denied attempt, once it stands in the audit history. Rows that anybody can cause are bounded by
// address.
func (s *server) refuse(ctx context.Context, c *call, object string, p *problem) *problem {
	if c.principal.Kind == hub.Anonymous && !s.strangers.allow(c.address) {
		return problemOf(hub.ErrThrottled, c.requestID)
	}
	if p.Status == http.StatusUnauthorized && recordedByAuth[c.operation] {
		return p
	}
	if err := s.auditDenied(ctx, c, object, p.Detail); err != nil {
		s.logFault(ctx, c, err)
		return newProblem(http.StatusInternalServerError, c.requestID)
	}
	return p
}

// recordedByAuth are the operations whose refusals package auth records, with the account's name.
var recordedByAuth = map[string]bool{"login": true, "setup": true}

func isDenial(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusTooManyRequests
}

func (s *server) logFault(ctx context.Context, c *call, err error) {
	level := slog.LevelError
	if errors.Is(err, context.Canceled) {
		level = slog.LevelInfo // the caller went away
	}
	s.cfg.Logger.Log(ctx, level, "request failed", "request_id", c.requestID, "operation", c.operation,
		"error", oneLine(err.Error()))
}

// oneLine keeps what others wrote from forging lines or moving a terminal's cursor.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}

// lines is oneLine for text that may have lines: a command's output.
func lines(text string) string {
	parts := strings.Split(text, "\n")
	for i := range parts {
		parts[i] = oneLine(strings.ReplaceAll(parts[i], "\t", "    "))
	}
	return strings.Join(parts, "\n")
}
