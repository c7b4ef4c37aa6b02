// This file answers a request for objects: the negotiation of what the client has, and the pack.

package gitserve

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// maxDepth is what git sends for --unshallow.
const maxDepth = 0x7fffffff

func (h *handler) uploadPack(w http.ResponseWriter, r *http.Request, grant Grant) {
	data, err := readBody(r)
	if err != nil {
		http.Error(w, "The request cannot be read.", http.StatusBadRequest)
		return
	}
	q, err := parseRequest(data)
	if err != nil || !q.caps["side-band-64k"] && len(q.wants) > 0 {
		http.Error(w, "The request is not one of a Git client that this server knows.", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
	tips := h.visible(grant)
	for _, want := range q.wants {
		if !h.offered(tips, want) {
			h.log.WarnContext(r.Context(), "git object refused", slog.String("name", grant.Name))
			writeLine(w, "ERR upload-pack: not our ref "+want.String())
			return
		}
	}
	if len(q.wants) == 0 {
		return
	}
	release, ok := h.packs.enter(r.Context())
	if !ok {
		w.Header().Del("Content-Type")
		busy(w)
		return
	}
	defer release()
	if err := h.answer(w, q, tips); err != nil {
		// The status is sent; cutting the answer off is what tells the client.
		h.log.ErrorContext(r.Context(), "git objects not served", slog.String("name", grant.Name), slog.Any("error", err))
		panic(http.ErrAbortHandler)
	}
}

// lately is how many commits back from a tip a caller may still want: between its two requests the branch may have
// moved on.
const lately = 16

// offered tells whether a caller that sees tips may want h.
func (h *handler) offered(tips []ref, want gitrepo.Hash) bool {
	if slices.ContainsFunc(tips, func(r ref) bool { return r.hash == want }) {
		return true
	}
	for _, tip := range tips {
		at := tip.hash
		for range lately {
			c, err := h.repo.Commit(at)
			if err != nil || len(c.Parents) == 0 {
				break
			}
			if at = c.Parents[0]; at == want {
				return true
			}
		}
	}
	return false
}

func (h *handler) answer(w io.Writer, q *request, tips []ref) error {
	common, err := h.common(q, tips)
	if err != nil {
		return err
	}
	haves := common
	if q.depth > 0 && len(q.shallow) > 0 {
		haves = nil // the client lacks history below what it has: send what it asks for whole
	}
	objects, shallow, err := h.repo.Missing(q.wants, haves, min(q.depth, maxDepth))
	if err != nil {
		return err
	}
	if q.depth > 0 {
		h.writeShallow(w, q, shallow)
		if !q.done && len(q.haves) == 0 {
			return nil
		}
	}
	if ready := negotiate(w, q, common); !ready {
		return nil
	}
	band := &sideBand{w: w}
	if err := h.repo.WritePack(band, objects); err != nil {
		return err
	}
	return band.close()
}

// writeShallow says where the client's history will end, and where it ends no longer.
func (h *handler) writeShallow(w io.Writer, q *request, shallow []gitrepo.Hash) {
	for _, s := range shallow {
		if !slices.Contains(q.shallow, s) {
			writeLine(w, "shallow "+s.String())
		}
	}
	for _, s := range q.shallow {
		if _, err := h.repo.Commit(s); err == nil && !slices.Contains(shallow, s) {
			writeLine(w, "unshallow "+s.String())
		}
	}
	_, _ = io.WriteString(w, "0000")
}

// common returns the haves that the caller may be told of: those in the history of what it is shown.
func (h *handler) common(q *request, tips []ref) ([]gitrepo.Hash, error) {
	if len(q.haves) == 0 {
		return nil, nil
	}
	open := make(map[gitrepo.Hash]bool, len(q.haves))
	for _, have := range q.haves {
		open[have] = true
	}
	found := map[gitrepo.Hash]bool{}
	seen := map[gitrepo.Hash]bool{}
	queue := make([]gitrepo.Hash, 0, len(tips))
	for _, t := range tips {
		queue = append(queue, t.hash)
	}
	for ; len(queue) > 0 && len(found) < len(open); queue = queue[1:] {
		at := queue[0]
		if seen[at] {
			continue
		}
		seen[at] = true
		if open[at] {
			found[at] = true
		}
		c, err := h.repo.Commit(at)
		if err != nil {
			return nil, err
		}
		queue = append(queue, c.Parents...)
	}
	return slices.DeleteFunc(slices.Clone(q.haves), func(have gitrepo.Hash) bool { return !found[have] }), nil
}

// negotiate writes the acknowledgements of stateless upload-pack with multi_ack_detailed, and says whether the pack
// follows. One common commit is enough to be ready: what it lacks is sent.
func negotiate(w io.Writer, q *request, common []gitrepo.Hash) (ready bool) {
	if !q.caps["multi_ack_detailed"] {
		// A client without it sends everything it has and "done" at once; it reads one answer.
		if len(common) > 0 {
			writeLine(w, "ACK "+common[0].String())
		} else {
			writeLine(w, "NAK")
		}
		return q.done
	}
	for _, c := range common {
		writeLine(w, "ACK "+c.String()+" common")
	}
	switch {
	case q.done && len(common) > 0:
		writeLine(w, "ACK "+common[len(common)-1].String())
		return true
	case q.done:
		writeLine(w, "NAK")
		return true
	case len(common) == 0:
		writeLine(w, "NAK")
		return false
	}
	last := common[len(common)-1].String()
	writeLine(w, "ACK "+last+" ready")
	writeLine(w, "NAK")
	if !q.caps["no-done"] {
		return false
	}
	writeLine(w, "ACK "+last)
	return true
}

func writeLine(w io.Writer, text string) {
	_, _ = fmt.Fprintf(w, "%04x%s\n", len(text)+5, text) // a lost client shows when the pack is written
}

// bandSize is the most that a line of side-band-64k holds, without its length and band.
const bandSize = 65520 - 5

// sideBand writes a pack as lines of the first band.
type sideBand struct {
	w    io.Writer
	line bytes.Buffer
}

// Write buffers p and sends full lines.
func (b *sideBand) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), bandSize-b.line.Len())
		b.line.Write(rest[:n])
		rest = rest[n:]
		if b.line.Len() == bandSize {
			if err := b.send(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (b *sideBand) send() error {
	if b.line.Len() == 0 {
		return nil
	}
	_, err := fmt.Fprintf(b.w, "%04x\x01", b.line.Len()+5)
	if err == nil {
		_, err = b.w.Write(b.line.Bytes())
	}
	b.line.Reset()
	if err != nil {
		return fmt.Errorf("send pack: %w", err)
	}
	return nil
}

// close sends the rest and the final flush.
func (b *sideBand) close() error {
	if err := b.send(); err != nil {
		return err
	}
	if _, err := io.WriteString(b.w, "0000"); err != nil {
		return fmt.Errorf("send pack: %w", err)
	}
	return nil
}
