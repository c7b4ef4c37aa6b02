// This file asks a remote what its references are at. The hub answers an agent's poll with 304 where nothing changed;
// a foreign server is asked by protocol v2 for what is wanted only (gitprotocol-v2, "ls-refs").

package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Limits bound what is taken from a remote, whatever it sends.
type Limits struct {
	// PackBytes bounds what is received, InflatedBytes the objects in it, in bytes.
	PackBytes     int64
	InflatedBytes int64
	// Objects bounds their number.
	Objects int
	// Timeout bounds one whole request, or one chunk of a push.
	Timeout time.Duration
}

// DefaultLimits fit a server with a few hundred certificates.
var DefaultLimits = Limits{PackBytes: 16 << 20, InflatedBytes: 32 << 20, Objects: 1000, Timeout: time.Minute}

const (
	// maxPoll bounds the answer to a poll, in bytes: about a hundred thousand references of a remote that cannot be
	// asked for one. They are looked at one by one and not kept.
	maxPoll = 8 << 20
	// maxList bounds a whole list of references, in bytes, and maxRefs how many of them are kept.
	maxList = 64 << 20
	maxRefs = 200_000
)

// Remote is a repository elsewhere, over smart HTTP or ssh. It follows no redirect and is safe for concurrent use.
type Remote struct {
	// URL of the repository: https://host/path, ssh://user@host:port/path, or http, without a password.
	URL string
	// Username and Password are sent as Basic authentication where Password is set; a token is a password.
	Username string
	Password string
	// PasswordFile is read at each request in place of Password, so that a token can be replaced at any time.
	PasswordFile string
	// HTTP is used for its transport; nil for the default one.
	HTTP *http.Client
	// SSH is needed for ssh URLs.
	SSH    *SSH
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
	var tip Tip
	var err error
	if r.overSSH() {
		err = r.list(ctx, []string{ref}, maxPoll, keepOne(ref, &tip.Hash))
	} else {
		tip, err = r.pollHTTP(ctx, ref, etag)
	}
	if err != nil {
		return tip, fmt.Errorf("poll remote: %w", connectionFault(ctx, err))
	}
	return tip, nil
}

func (r *Remote) pollHTTP(ctx context.Context, ref, etag string) (Tip, error) {
	header := http.Header{"Git-Protocol": {"version=2"}}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	answer, err := r.do(ctx, http.MethodGet, "/info/refs?service="+uploadPack, header, nil, 0) //nolint:bodyclose // the wire closes it
	tip := Tip{RetryAfter: retryAfter(answer)}
	if err != nil {
		return tip, err
	}
	w := &httpWire{remote: r, service: uploadPack, header: http.Header{"Git-Protocol": {"version=2"}}, bodies: []io.Closer{answer.Body}}
	defer func() { _ = w.close(nil) }()
	if answer.StatusCode == http.StatusNotModified {
		tip.NotModified, tip.ETag = true, etag
		return tip, nil
	}
	if w.first, err = skipService(answer.Body, uploadPack); err != nil {
		return tip, err
	}
	v2, err := listOver(ctx, w, []string{ref}, maxPoll, keepOne(ref, &tip.Hash))
	if err == nil && !v2 {
		tip.ETag = answer.Header.Get("ETag")
	}
	return tip, err
}

func keepOne(ref string, into *Hash) func(string, Hash) error {
	return func(name string, h Hash) error {
		if name == ref {
			*into = h
		}
		return nil
	}
}

// List returns the references whose names start with one of prefixes.
func (r *Remote) List(ctx context.Context, prefixes ...string) (map[string]Hash, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Limits.Timeout)
	defer cancel()
	refs := map[string]Hash{}
	err := r.list(ctx, prefixes, maxList, keepAll(prefixes, refs))
	if err != nil {
		return nil, fmt.Errorf("list references: %w", connectionFault(ctx, err))
	}
	return refs, nil
}

func keepAll(prefixes []string, into map[string]Hash) func(string, Hash) error {
	return func(name string, h Hash) error {
		for _, p := range prefixes {
			if strings.HasPrefix(name, p) {
				into[name] = h
				break
			}
		}
		if len(into) > maxRefs {
			return fmt.Errorf("%w: more than %d references", ErrTooLarge, maxRefs)
		}
		return nil
	}
}

func (r *Remote) list(ctx context.Context, prefixes []string, limit int64, keep func(string, Hash) error) error {
	w, err := r.connect(ctx, uploadPack, true)
	if err != nil {
		return err
	}
	_, err = listOver(ctx, w, prefixes, limit, keep)
	return w.close(err)
}

// listOver reads the greeting of git-upload-pack and gives its references to keep; where it is one of protocol v2 it
// asks for those with prefixes.
func listOver(ctx context.Context, w wire, prefixes []string, limit int64, keep func(string, Hash) error) (v2 bool, err error) {
	lines := newPktReader(w.greeting(), limit)
	first, ok, err := lines.text()
	switch {
	case err != nil:
		return false, orSilent(err)
	case !ok: // an empty repository
		return false, nil
	case first != "version 2":
		// Closing an ssh conversation here is what git does too; HTTP has none.
		return false, readRefs(lines, first, keep)
	}
	if err := skipLines(lines); err != nil { // what the server is able to do
		return true, err
	}
	var body bytes.Buffer
	body.WriteString(pkt("command=ls-refs\n") + pkt("agent="+userAgent+"\n") + "0001")
	for _, p := range prefixes {
		body.WriteString(pkt("ref-prefix " + p + "\n"))
	}
	body.WriteString("0000")
	answer, err := w.ask(ctx, &body, int64(body.Len()))
	if err != nil {
		return true, err
	}
	lines = newPktReader(answer, limit)
	first, ok, err = lines.text()
	if err != nil || !ok {
		return true, err
	}
	return true, readRefs(lines, first, keep)
}

// orSilent is the fault of a remote that ended, or said nothing, where it should have begun.
func orSilent(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return errors.New("the remote does not speak Git: check its URL")
	}
	return err
}

func skipLines(lines *pktReader) error {
	for {
		if _, ok, err := lines.text(); err != nil || !ok {
			return err
		}
	}
}

// readRefs reads lines of "hash name", the first of which was read already, up to the flush.
func readRefs(lines *pktReader, line string, keep func(string, Hash) error) error {
	for ok := true; ok; {
		if !strings.HasPrefix(line, "shallow ") {
			text, _, _ := strings.Cut(line, "\x00")
			digits, name, cut := strings.Cut(text, " ")
			h, err := ParseHash(digits)
			if !cut || err != nil {
				return errors.New("the remote does not speak Git: a reference is malformed")
			}
			if err := keep(name, h); err != nil {
				return err
			}
		}
		var err error
		if line, ok, err = lines.text(); err != nil {
			return err
		}
	}
	return nil
}
