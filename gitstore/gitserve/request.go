// This file reads a client's request for objects (gitprotocol-pack, "Packfile Negotiation").

package gitserve

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// maxRequest bounds a request, inflated, in bytes: twenty thousand lines.
const maxRequest = 1 << 20

// request is what a client wants and has.
type request struct {
	wants   []gitrepo.Hash
	haves   []gitrepo.Hash
	shallow []gitrepo.Hash
	// depth is how many commits are wanted, 0 for all.
	depth int
	caps  map[string]bool
	// flushed says that the list of haves ended with a flush, done that the client wants the pack now.
	flushed bool
	done    bool
}

// readBody reads the whole request before anything is answered: net/http discards what is left of a body once the
// handler writes.
func readBody(r *http.Request) ([]byte, error) {
	body, err := inflated(r)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(body, maxRequest+1))
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	if len(data) > maxRequest {
		return nil, fmt.Errorf("read request: more than %d bytes", maxRequest)
	}
	return data, nil
}

// inflated is the body of a request; git compresses long ones.
func inflated(r *http.Request) (io.Reader, error) {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return r.Body, nil
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	return z, nil
}

// parseRequest reads the lines of a request.
func parseRequest(data []byte) (*request, error) {
	q := &request{caps: map[string]bool{}}
	scanner := pktline.NewScanner(bytes.NewReader(data))
	negotiating := false
	for !q.done && scanner.Scan() {
		raw := scanner.Bytes()
		if len(raw) == 0 {
			q.flushed = negotiating && len(q.haves) > 0 || q.flushed
			negotiating = true
			continue
		}
		if err := q.line(strings.TrimSuffix(string(raw), "\n")); err != nil {
			return nil, err
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	return q, nil
}

func (q *request) line(text string) error {
	verb, rest, _ := strings.Cut(text, " ")
	switch verb {
	case "want":
		hash, caps, _ := strings.Cut(rest, " ")
		for name := range strings.FieldsSeq(caps) {
			q.caps[name] = true
		}
		return appendHash(&q.wants, hash)
	case "have":
		return appendHash(&q.haves, rest)
	case "shallow":
		return appendHash(&q.shallow, rest)
	case "deepen":
		depth, err := strconv.Atoi(rest)
		if err != nil || depth < 1 {
			return errors.New("read request: the depth is not a positive number")
		}
		q.depth = depth
		return nil
	case "done":
		q.done = true
		return nil
	default:
		return errors.New("read request: a line of an unknown kind")
	}
}

func appendHash(list *[]gitrepo.Hash, text string) error {
	h, err := gitrepo.ParseHash(text)
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	*list = append(*list, h)
	return nil
}
