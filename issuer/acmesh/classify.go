// This file reads from acme.sh's log and output why an order failed, and what that means for the next try.

package acmesh

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/certferry/certferry/issuer"
)

// problem is an ACME problem document (RFC 7807, RFC 8555 §6.7).
type problem struct {
	Type   string `json:"type"`
	Detail string `json:"detail"`
	Status int    `json:"status"`
	// Subproblems are those of single names.
	Subproblems []struct {
		Type       string `json:"type"`
		Detail     string `json:"detail"`
		Identifier struct {
			Value string `json:"value"`
		} `json:"identifier"`
	} `json:"subproblems"`
}

// document is what is read of an order or an authorization (RFC 8555 §7.1.3, §7.1.4).
type document struct {
	// Error is why an order failed after it was finalized.
	Error      *problem `json:"error"`
	Identifier struct {
		Value string `json:"value"`
	} `json:"identifier"`
	Challenges []struct {
		Error *problem `json:"error"`
	} `json:"challenges"`
}

// longWait is how long acme.sh itself waits at most when the CA asks for it. Beyond it the CA limits us.
const longWait = 600 * time.Second

var (
	// logEntry begins an entry of the log: "name='value'" with the value on further lines too, or a text behind a date.
	logEntry   = regexp.MustCompile(`(?m)^(?:\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]?\d [0-9:]{8} [A-Z]+ \d{4}\] |[A-Za-z_][A-Za-z0-9_]*=')`)
	logStart   = regexp.MustCompile(`(?m)^\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]?\d [0-9:]{8} [A-Z]+ \d{4}\] `)
	curlError  = regexp.MustCompile(`libcurl-errors\.html for error code: (\d+)`)
	retryUntil = regexp.MustCompile(`retry after (\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}) UTC`)
	retryLine  = regexp.MustCompile(`(?im)^retry-after: *([^\r\n]+)`)
	dateLine   = regexp.MustCompile(`(?im)^date: *([^\r\n]+)`)
	curlName   = map[string]string{
		"6": "the name of the CA or DNS provider does not resolve", "7": "the CA or DNS provider refuses the connection",
		"28": "the CA or DNS provider does not answer", "60": "the TLS certificate of the CA is not trusted",
		"77": "the CA bundle cannot be read", "63": "the CA's answer is larger than an answer may be",
		"47": "the CA leads to another place, which is not followed",
	}
)

// phrases are lines of acme.sh that name the fault by themselves.
var phrases = []struct {
	text   string
	class  issuer.Class
	detail string
}{
	{"Cannot find DNS API hook for", issuer.Permanent, "acme.sh has no such DNS hook"},
	{"Error adding TXT record to domain", issuer.DNSProvider, "the DNS provider did not take the TXT record: check the credential"},
	{"Cannot write token to file", issuer.Permanent, "the webroot cannot be written by the hub"},
	{"is already used by", issuer.Retryable, "the port for the standalone challenge is in use"},
	{"Please install socat", issuer.Local, "the method standalone needs socat on the hub"},
	{"No space left on device", issuer.Local, "the disk is full"},
	{"Supported validation types are", issuer.Permanent, "the CA does not offer this challenge for a name"},
	{"Only RSA or EC keys are supported", issuer.Account, "the ACME account's key is damaged"},
	{"Giving up sending to CA server", issuer.Retryable, "the CA refused every nonce"},
	{"Signing failed", issuer.Retryable, "the CA did not send the certificate"},
	{"Syntax error", issuer.Local, "acme.sh cannot be run: its script is damaged"},
}

// classify says why a run failed.
func classify(log string, r result, now time.Time) *issuer.Error {
	// What follows this line is acme.sh clearing up, with requests of its own.
	log, _, _ = strings.Cut(log, "_on_issue_err")
	state := readLog(log, now)
	if e := state.err(now); e != nil {
		e.RetryAfter = state.retryAfter
		return e
	}
	text := r.output + "\n" + log
	for _, p := range phrases {
		if strings.Contains(text, p.text) {
			return &issuer.Error{Class: p.class, Detail: p.detail}
		}
	}
	if match := curlError.FindStringSubmatch(text); match != nil {
		class := issuer.Retryable
		if match[1] == "60" || match[1] == "77" {
			class = issuer.Permanent
		}
		detail := curlName[match[1]]
		if detail == "" {
			detail = "the connection to the CA or DNS provider broke (curl error " + match[1] + ")"
		}
		return &issuer.Error{Class: class, Detail: detail}
	}
	switch r.code {
	case 0, 2:
		return &issuer.Error{Class: issuer.Local}
	case 3:
		return &issuer.Error{Class: issuer.Permanent, Detail: "acme.sh has no such DNS hook"}
	default:
		return &issuer.Error{Class: issuer.Retryable, Detail: lastLine(r.output)}
	}
}

// logState is the newest that the log says of the exchange with the CA.
type logState struct {
	problem *problem
	// name is the name whose authorization holds the problem.
	name string
	// asked says that the problem is part of a document that the CA answered when asked, and no refusal of a request.
	asked      bool
	status     int
	retryAfter time.Duration
}

// readLog follows the answers of the CA in the log: a later success clears an earlier problem.
func readLog(log string, now time.Time) *logState {
	s := &logState{}
	starts := logEntry.FindAllStringIndex(log, -1)
	for n, at := range starts {
		end := len(log)
		if n+1 < len(starts) {
			end = starts[n+1][0]
		}
		name, value, ok := strings.Cut(logStart.ReplaceAllString(log[at[0]:end], ""), "='")
		if !ok {
			continue
		}
		// What follows the last quote at the end of a line is a text of its own.
		if quote := strings.LastIndex(value+"\n", "'\n"); quote >= 0 {
			value = value[:quote]
		}
		switch name {
		case "responseHeaders":
			s.retryAfter = waitOf(value, now)
		case "original":
			s.body(value)
		case "code":
			s.code(value)
		}
	}
	return s
}

// code begins an answer: acme.sh logs the status before the body.
func (s *logState) code(text string) {
	text, _, _ = strings.Cut(text, "'")
	s.status, _ = strconv.Atoi(strings.TrimSpace(text)) // no number reads as none
	s.problem, s.name, s.asked = nil, "", false
	switch {
	case s.status >= 500:
		s.problem = &problem{Type: acmeURN + "serverInternal", Detail: "the CA answers with status " + strconv.Itoa(s.status), Status: s.status}
	case s.status == 429:
		s.problem = &problem{Type: acmeURN + "rateLimited", Detail: "the CA asks to slow down", Status: 429}
	}
}

// body says more of an answer. One that is no ACME document, such as a page of a load balancer, leaves what its status
// said.
func (s *logState) body(text string) {
	if s.status < 400 {
		s.problem, s.name, s.asked = nil, "", false
	}
	p := new(problem)
	if json.Unmarshal([]byte(text), p) == nil && strings.HasPrefix(p.Type, acmeURN) {
		s.problem = p
		if len(p.Subproblems) > 0 && strings.HasPrefix(p.Subproblems[0].Type, acmeURN) {
			sub := p.Subproblems[0] // which of the names, and what is wrong with it (RFC 8555 §6.7.1)
			s.problem, s.name = &problem{Type: sub.Type, Detail: sub.Detail, Status: p.Status}, sub.Identifier.Value
		}
		return
	}
	d := new(document)
	if json.Unmarshal([]byte(text), d) != nil {
		return
	}
	if d.Error != nil && d.Error.Type != "" {
		s.problem, s.asked = d.Error, true
	}
	for _, c := range d.Challenges {
		if c.Error != nil && c.Error.Type != "" {
			s.problem, s.name, s.asked = c.Error, d.Identifier.Value, true
		}
	}
}

// err makes the error of the newest problem, nil where there is none.
func (s *logState) err(now time.Time) *issuer.Error {
	if s.problem == nil {
		return nil
	}
	short := strings.TrimPrefix(s.problem.Type, acmeURN)
	e := &issuer.Error{ACMEType: short, Name: s.name, Detail: oneLine(s.problem.Detail)}
	status := s.problem.Status
	if status == 0 {
		status = s.status
	}
	e.Class = classOf(short, status)
	switch {
	case s.asked && short == "unauthorized", s.name != "" && (e.Class == issuer.Retryable || e.Class == issuer.Account):
		e.Class = issuer.ValidationFailed
	case s.status == 503 && s.retryAfter > longWait:
		e.Class = issuer.RateLimited
	}
	if match := retryUntil.FindStringSubmatch(s.problem.Detail); match != nil {
		if until, err := time.Parse(time.DateTime, match[1]); err == nil {
			s.retryAfter = max(s.retryAfter, min(until.Sub(now), longestWait))
		}
	}
	if e.Class == issuer.RateLimited && s.retryAfter == 0 {
		s.retryAfter = time.Hour
	}
	return e
}

// classOf gives the class of an ACME problem type (without its URN) with its HTTP status.
func classOf(short string, status int) issuer.Class {
	switch short {
	case "rateLimited":
		return issuer.RateLimited
	case "dns", "connection", "tls", "incorrectResponse":
		return issuer.ValidationFailed
	case "accountDoesNotExist", "externalAccountRequired", "userActionRequired", "unauthorized":
		return issuer.Account
	case "caa", "rejectedIdentifier", "malformed", "badCSR", "badPublicKey", "invalidContact", "invalidProfile",
		"unsupportedContact", "unsupportedIdentifier", "badSignatureAlgorithm", "alreadyRevoked", "badRevocationReason":
		if short == "malformed" && status == 404 {
			return issuer.Retryable // an order that the CA forgot
		}
		return issuer.Permanent
	}
	if status == 429 {
		return issuer.RateLimited
	}
	return issuer.Retryable
}

// longestWait bounds what a CA asks for: nothing that it counts is counted for longer.
const longestWait = 30 * 24 * time.Hour

// waitOf is the wait that logged headers ask for, by the CA's own clock where they tell it.
func waitOf(headers string, now time.Time) time.Duration {
	match := retryLine.FindStringSubmatch(headers)
	if match == nil {
		return 0
	}
	if date := dateLine.FindStringSubmatch(headers); date != nil {
		if theirs, err := http.ParseTime(strings.TrimSpace(date[1])); err == nil {
			now = theirs
		}
	}
	return min(retryAfter(http.Header{"Retry-After": {strings.TrimSpace(match[1])}}, now), longestWait)
}

// oneLine makes a CA's text fit for a log and a page: one line, no control characters, bounded.
func oneLine(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if runes := []rune(text); len(runes) > 500 {
		return string(runes[:500]) + "…"
	}
	return text
}

// lastLine is the last line of acme.sh's output that says something.
func lastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for _, line := range slices.Backward(lines) {
		line = strings.TrimSpace(logStart.ReplaceAllString(line, ""))
		if line != "" && !isNoise(line) {
			return "acme.sh says: " + oneLine(line)
		}
	}
	return "acme.sh failed without a word"
}
