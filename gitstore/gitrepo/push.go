// This file pushes: a conversation with git-receive-pack (gitprotocol-pack, "Pushing data to a server") with the old
// value of each reference, which the remote compares, so that nobody's change is overwritten unseen.

package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// PushChunk is how many references move together at most: some hosts take no more at once, and a server keeps the
// pack of a push in memory.
const PushChunk = 1000

// maxStatus bounds what a remote answers to a push, in bytes.
const maxStatus = 4 << 20

// RefUpdate moves a reference of a remote.
type RefUpdate struct {
	Ref string
	// Old is where it must be: zero where it must not exist.
	Old Hash
	// New is where it goes; zero removes it.
	New Hash
}

// RefResult is what became of a RefUpdate.
type RefResult struct {
	RefUpdate

	// Err is nil where it moved; else ErrStale, ErrRejected or another class, or why it was not tried.
	Err error
}

// Push moves references of the remote and sends the objects of repo that it lacks. The results come in the order of
// updates; the error is the first one that ended a conversation, and the references that were still to come have it
// too. With atomic, each PushChunk of references moves together or not at all, ErrNotAtomic where the remote cannot.
func (r *Remote) Push(ctx context.Context, repo *Repo, updates []RefUpdate, atomic bool) ([]RefResult, error) {
	results := make([]RefResult, len(updates))
	for i, u := range updates {
		results[i] = RefResult{RefUpdate: u, Err: checkRefName(u.Ref)}
		if results[i].Err != nil {
			return nil, fmt.Errorf("push: %w", results[i].Err)
		}
	}
	for start := 0; start < len(results); start += PushChunk {
		chunk := results[start:min(start+PushChunk, len(results))]
		if err := r.pushChunk(ctx, repo, chunk, atomic); err != nil {
			err = fmt.Errorf("push: %w", err)
			for i := range results[start:] {
				results[start+i].Err = err
			}
			return results, err
		}
	}
	return results, nil
}

func (r *Remote) pushChunk(ctx context.Context, repo *Repo, chunk []RefResult, atomic bool) error {
	ctx, cancel := context.WithTimeout(ctx, r.Limits.Timeout)
	defer cancel()
	w, err := r.connect(ctx, receivePack, false)
	if err != nil {
		return pushFault(ctx, err)
	}
	p := pusher{repo: repo, chunk: chunk, atomic: atomic}
	return pushFault(ctx, w.close(p.run(ctx, w)))
}

// pushFault sorts faults like connectionFault. A remote that lets a credential read and not push is read-only for it.
func pushFault(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*forbiddenError](err); ok {
		return fmt.Errorf("%w: the account may not push there", ErrReadOnly)
	}
	return connectionFault(ctx, err)
}

// pusher pushes one chunk.
type pusher struct {
	repo   *Repo
	chunk  []RefResult
	atomic bool
	caps   map[string]bool
}

func (p *pusher) run(ctx context.Context, w wire) error {
	tips, err := p.advertised(w)
	if err != nil {
		return err
	}
	body, size, err := p.request(tips)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // ends the writer of a pack that nobody reads any more
	answer, err := w.ask(ctx, body, size)
	if err != nil {
		return err
	}
	var notes bytes.Buffer
	if p.caps["side-band-64k"] {
		answer = &bandReader{lines: newPktReader(answer, maxStatus), notes: &notes}
	}
	status, err := readStatus(newPktReader(answer, maxStatus))
	if err != nil {
		if text := said(notes.String()); text != "" && !classified(err) {
			return serverFault(text)
		}
		return fmt.Errorf("read answer: %w", err)
	}
	return p.note(status, said(notes.String()))
}

// advertised reads what the remote has and what it is able to do.
func (p *pusher) advertised(w wire) ([]Hash, error) {
	lines := newPktReader(w.greeting(), maxList)
	first, ok, err := lines.text()
	if err != nil || !ok {
		return nil, orSilent(err)
	}
	_, caps, _ := strings.Cut(first, "\x00")
	p.caps = map[string]bool{}
	for c := range strings.FieldsSeq(caps) {
		p.caps[c] = true
	}
	var tips []Hash
	err = readRefs(lines, first, func(_ string, h Hash) error {
		tips = append(tips, h)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !p.caps["report-status"]:
		return nil, errors.New("the remote does not say what becomes of a push: it cannot be used")
	case p.atomic && !p.caps["atomic"]:
		return nil, ErrNotAtomic
	case !p.caps["delete-refs"] && slices.ContainsFunc(p.chunk, func(r RefResult) bool { return r.New.IsZero() }):
		return nil, fmt.Errorf("%w: it lets nobody remove references", ErrRejected)
	}
	return tips, nil
}

// request returns the commands and the pack, and how long both are.
func (p *pusher) request(tips []Hash) (io.ReadCloser, int64, error) {
	list := newSendList(p.repo, tips)
	var head bytes.Buffer
	removeOnly := true
	for i, u := range p.chunk {
		line := fmt.Sprintf("%s %s %s", u.Old, u.New, u.Ref)
		if i == 0 {
			line += "\x00" + p.wanted()
		}
		head.WriteString(pkt(line))
		removeOnly = removeOnly && u.New.IsZero()
		if err := list.add(u.RefUpdate); err != nil {
			return nil, 0, err
		}
	}
	head.WriteString("0000")
	if removeOnly { // there is no pack then
		return io.NopCloser(bytes.NewReader(head.Bytes())), int64(head.Len()), nil
	}
	size, err := p.repo.packBytes(list.objects)
	if err != nil {
		return nil, 0, err
	}
	size += int64(head.Len())
	reader, writer := io.Pipe()
	go func() { _ = writer.CloseWithError(p.repo.WritePack(writer, list.objects)) }()
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&head, reader), reader}, size, nil
}

// wanted lists the capabilities that this client uses of those that the remote has.
func (p *pusher) wanted() string {
	caps := []string{"report-status"}
	for _, c := range []string{"side-band-64k", "object-format=sha1"} {
		if p.caps[c] {
			caps = append(caps, c)
		}
	}
	if p.atomic {
		caps = append(caps, "atomic")
	}
	return strings.Join(append(caps, "agent="+userAgent), " ")
}

// pushStatus is the remote's report.
type pushStatus struct {
	// unpack is "ok", or why the objects were not taken.
	unpack string
	// refused holds the reason for each reference that did not move, moved the others.
	refused map[string]string
	moved   map[string]bool
}

// readStatus reads the report of a push (gitprotocol-pack, "Report Status").
func readStatus(lines *pktReader) (pushStatus, error) {
	s := pushStatus{refused: map[string]string{}, moved: map[string]bool{}}
	for {
		line, ok, err := lines.text()
		if err != nil {
			return s, err
		}
		if !ok {
			if s.unpack == "" {
				return s, errors.New("the remote does not say what became of the push")
			}
			return s, nil
		}
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "unpack":
			s.unpack = rest
		case "ok":
			s.moved[rest] = true
		case "ng":
			ref, reason, _ := strings.Cut(rest, " ")
			s.refused[ref] = reason
		}
	}
}

// note gives each reference its result. notes is what hooks and the host had to say.
func (p *pusher) note(s pushStatus, notes string) error {
	if s.unpack != "ok" {
		return serverFault(strings.TrimSpace("objects not taken: " + s.unpack + " " + notes))
	}
	for i := range p.chunk {
		ref := p.chunk[i].Ref
		reason, refused := s.refused[ref]
		switch {
		case s.moved[ref] && !refused:
			p.chunk[i].Err = nil
		case refused:
			p.chunk[i].Err = refusal(ref, reason, notes)
		default:
			p.chunk[i].Err = fmt.Errorf("%w: it does not say why", ErrRejected)
		}
	}
	return nil
}

// refusal sorts the reasons that git gives for a reference.
func refusal(ref, reason, notes string) error {
	low := strings.ToLower(reason)
	if strings.Contains(low, "atomic") {
		// All references get this reason; what git says beside it names the one that could not move.
		if !strings.Contains(notes, "'"+ref+"'") {
			return fmt.Errorf("%w: it goes together with another one that was refused: %s", ErrRejected, notes)
		}
		low = strings.ToLower(notes)
	}
	for _, sign := range []string{
		"but expected", "reference already exists", "incorrect old value", "fetch first", "failed to update ref",
		"failed to lock", "cannot lock ref", "stale",
	} {
		if strings.Contains(low, sign) {
			return fmt.Errorf("%w: somebody else moved it on the remote", ErrStale)
		}
	}
	if err := serverFault(reason + " " + notes); errors.Is(err, ErrFull) || errors.Is(err, ErrReadOnly) {
		return err
	}
	return fmt.Errorf("%w: %s", ErrRejected, strings.TrimSuffix(said(reason)+": "+notes, ": "))
}

// bandReader gives the first side band and keeps what the remote says for people on the second.
type bandReader struct {
	lines *pktReader
	notes *bytes.Buffer
	rest  []byte
	ended bool
}

// Read implements io.Reader.
func (b *bandReader) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.ended {
			return 0, io.EOF
		}
		line, kind, err := b.lines.next()
		switch {
		case err != nil:
			return 0, err
		case kind != aLine:
			b.ended = true
		case len(line) == 0:
		case line[0] == 1:
			b.rest = line[1:]
		case line[0] == 2:
			b.notes.Write(line[1:min(len(line), 1+max(0, 4096-b.notes.Len()))])
		case line[0] == 3:
			return 0, serverFault(string(line[1:]))
		default:
			return 0, errors.New("the remote does not speak Git: a line is of no side band")
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}
