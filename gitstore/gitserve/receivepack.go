// This file takes pushes (gitprotocol-pack, "Pushing Data To a Server"): what people commit to main. Who decides about
// them is the Receiver; nothing is stored before it did.

package gitserve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// Receiver decides about pushes.
type Receiver interface {
	// Receive applies a push or refuses it. Other errors than a *RefusalError are faults of the hub; the pusher is told to
	// try again.
	Receive(ctx context.Context, p Push) (notes []string, err error)
}

// Push is commits that somebody pushed to a reference.
type Push struct {
	Grant Grant
	Ref   string
	// Old is where the pusher thinks that the reference is, New where it shall go.
	Old      gitrepo.Hash
	New      gitrepo.Hash
	Incoming *gitrepo.Incoming
}

// RefusalError is why a push is refused, in words for the pusher.
type RefusalError struct {
	// Reason is one short line, which git prints behind the reference.
	Reason string
	// Notes are further lines, which git prints before it as the remote's.
	Notes []string
}

// Error implements error.
func (r *RefusalError) Error() string { return r.Reason }

const (
	// pushable is the one reference that takes pushes.
	pushable = "refs/heads/main"
	// maxCommands bounds the references of one push.
	maxCommands = 100
)

// receiveCapabilities are those of gitprotocol-capabilities that pushes have.
const receiveCapabilities = "report-status delete-refs atomic side-band-64k ofs-delta quiet object-format=sha1 agent=certferry"

// command is one reference that a push moves.
type command struct {
	ref      string
	old, new gitrepo.Hash
	// refused says why not; empty if the reference moved.
	refused string
}

// pushRequest is what stands before the pack.
type pushRequest struct {
	commands []command
	caps     map[string]bool
}

func (h *handler) receivePack(w http.ResponseWriter, r *http.Request, grant Grant) {
	if h.receiver == nil || !grant.Push {
		refusePush(w, r, grant)
		return
	}
	release, ok := h.pushes.enter(r.Context())
	if !ok {
		busy(w)
		return
	}
	defer release()
	body, err := inflated(r)
	if err != nil {
		http.Error(w, "The request cannot be read.", http.StatusBadRequest)
		return
	}
	q, err := parsePush(body)
	if err != nil {
		http.Error(w, "The request is not one of a Git client that this server knows.", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-git-receive-pack-result")
	if len(q.commands) == 0 {
		return // git asks so whether a large push would be let in
	}
	answer := &pushAnswer{w: w, banded: q.caps["side-band-64k"]}
	unpacked := h.decide(r.Context(), grant, q, body, answer)
	if err := answer.report(unpacked, q); err != nil {
		h.log.WarnContext(r.Context(), "git push not answered", slog.String("name", grant.Name), slog.Any("error", err))
	}
}

// decide fills in what becomes of each command, and returns why the pack could not be read.
func (h *handler) decide(ctx context.Context, grant Grant, q *pushRequest, pack io.Reader, answer *pushAnswer) (unpacked string) {
	in, err := h.repo.ReadIncoming(pack, gitrepo.PushLimits)
	if err != nil {
		h.log.WarnContext(ctx, "git push refused", slog.String("name", grant.Name), slog.Any("error", err))
		for i := range q.commands {
			q.commands[i].refused = "unpacker error"
		}
		if errors.Is(err, gitrepo.ErrTooLarge) {
			return "the push is too large: this repository holds small text files"
		}
		return "the pack cannot be read"
	}
	refused := false
	for i := range q.commands {
		c := &q.commands[i]
		c.refused = h.refuse(c)
		refused = refused || c.refused != ""
	}
	for i := range q.commands {
		c := &q.commands[i]
		switch {
		case c.refused != "":
		case refused && q.caps["atomic"]:
			c.refused = "another reference of the same push was refused"
		default:
			c.refused = h.receive(ctx, Push{Grant: grant, Ref: c.ref, Old: c.old, New: c.new, Incoming: in}, answer)
		}
	}
	return "ok"
}

// refuse answers what needs no look at the commits.
func (h *handler) refuse(c *command) string {
	at, _ := h.repo.Ref(c.ref)
	switch {
	case c.ref != pushable && strings.HasPrefix(c.ref, "refs/heads/servers/"):
		return "the hub alone writes the branches of servers: push to main"
	case c.ref != pushable:
		return "only main takes pushes"
	case c.new.IsZero():
		return "main cannot be deleted"
	case at != c.old:
		return "fetch first"
	}
	return ""
}

func (h *handler) receive(ctx context.Context, p Push, answer *pushAnswer) string {
	notes, err := h.receiver.Receive(ctx, p)
	answer.note(notes)
	refusal := new(RefusalError)
	switch {
	case errors.As(err, &refusal):
		h.log.InfoContext(ctx, "git push refused", slog.String("name", p.Grant.Name), slog.String("reason", refusal.Reason))
		answer.note(refusal.Notes)
		return refusal.Reason
	case err != nil:
		h.log.ErrorContext(ctx, "git push failed", slog.String("name", p.Grant.Name), slog.Any("error", err))
		return "the hub failed: try again in a moment"
	}
	h.log.InfoContext(ctx, "git push applied", slog.String("name", p.Grant.Name), slog.String("commit", p.New.String()))
	return ""
}

// parsePush reads the commands; what follows in body is the pack.
func parsePush(body io.Reader) (*pushRequest, error) {
	q := &pushRequest{caps: map[string]bool{}}
	scanner := pktline.NewScanner(body) // it reads no further than the flush
	for scanner.Scan() {
		raw := scanner.Bytes()
		if len(raw) == 0 {
			return q, nil
		}
		text, caps, _ := strings.Cut(strings.TrimSuffix(string(raw), "\n"), "\x00")
		for name := range strings.FieldsSeq(caps) {
			q.caps[name] = true
		}
		c, err := parseCommand(text)
		if err != nil {
			return nil, err
		}
		if q.commands = append(q.commands, c); len(q.commands) > maxCommands {
			return nil, fmt.Errorf("read push: more than %d references", maxCommands)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read push: %w", err)
	}
	return nil, errors.New("read push: it is cut off")
}

func parseCommand(text string) (c command, err error) {
	before, rest, _ := strings.Cut(text, " ")
	after, ref, ok := strings.Cut(rest, " ")
	if !ok || ref == "" || strings.ContainsAny(ref, " \t") {
		return c, errors.New("read push: a command is malformed")
	}
	if c.old, err = gitrepo.ParseHash(before); err == nil {
		c.new, err = gitrepo.ParseHash(after)
	}
	c.ref = ref
	return c, err
}

// pushAnswer writes what became of a push.
type pushAnswer struct {
	w      io.Writer
	banded bool
	notes  []string
}

func (a *pushAnswer) note(lines []string) { a.notes = append(a.notes, lines...) }

// report writes the notes and the report of gitprotocol-pack, "Report Status".
func (a *pushAnswer) report(unpacked string, q *pushRequest) error {
	var out, status bytes.Buffer
	writeLine(&status, "unpack "+unpacked)
	for _, c := range q.commands {
		if c.refused == "" {
			writeLine(&status, "ok "+c.ref)
		} else {
			writeLine(&status, "ng "+c.ref+" "+c.refused)
		}
	}
	status.WriteString("0000")
	switch {
	case a.banded:
		for _, line := range a.notes {
			writeBand(&out, 2, []byte(line+"\n"))
		}
		if q.caps["report-status"] {
			writeBand(&out, 1, status.Bytes())
		}
		out.WriteString("0000")
	case q.caps["report-status"]:
		out.Write(status.Bytes())
	}
	_, err := a.w.Write(out.Bytes())
	return err
}

// writeBand writes data as lines of one side band.
func writeBand(w *bytes.Buffer, band byte, data []byte) {
	for len(data) > 0 {
		n := min(len(data), bandSize)
		fmt.Fprintf(w, "%04x%c", n+5, band)
		w.Write(data[:n])
		data = data[n:]
	}
}
