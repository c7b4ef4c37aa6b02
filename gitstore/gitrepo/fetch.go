// This file fetches one commit with its files from a remote that is not trusted: everything is bounded before it is
// inflated, every object is named by its own hash, and nothing is written anywhere.

package gitrepo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/hash"
)

const (
	// maxFetchDepth is how deep the folders of a fetched commit may be nested.
	maxFetchDepth = 4
	// maxFetchFiles bounds the files and folders of a fetched commit: equal files are one object of the pack.
	maxFetchFiles = 4096
	// fetchAlphabet is what the names of fetched files may consist of.
	fetchAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789._-"
)

// Snapshot is a commit with its files.
type Snapshot struct {
	Commit *Commit
	// Files holds the content of every file by its path.
	Files map[string][]byte
}

// Fetch gets the commit tip of ref, without its history.
func (r *Remote) Fetch(ctx context.Context, ref string, tip Hash) (*Snapshot, error) {
	if tip.IsZero() {
		return nil, errors.New("fetch: no commit is named")
	}
	ctx, cancel := context.WithTimeout(ctx, r.Limits.Timeout)
	defer cancel()
	pack, err := r.fetchPack(ctx, request{want: tip, depth: 1})
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", ref, connectionFault(ctx, err))
	}
	objects, err := parsePack(pack, r.Limits, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", ref, err)
	}
	snapshot, err := checkout(objects, tip)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", ref, err)
	}
	return snapshot, nil
}

// FetchHistory gets the commit tip with the history that repo lacks. haves are commits of repo that the remote may
// have: what leads to one of those that it has is left out.
func (r *Remote) FetchHistory(ctx context.Context, repo *Repo, tip Hash, haves []Hash) (*Incoming, error) {
	if tip.IsZero() {
		return nil, errors.New("fetch history: no commit is named")
	}
	ctx, cancel := context.WithTimeout(ctx, r.Limits.Timeout)
	defer cancel()
	pack, err := r.fetchPack(ctx, request{want: tip, haves: haves})
	if err != nil {
		return nil, fmt.Errorf("fetch history: %w", connectionFault(ctx, err))
	}
	in, err := repo.ReadIncoming(bytes.NewReader(pack), r.Limits)
	if err == nil {
		_, err = in.Commit(tip)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch history: %w", err)
	}
	return in, nil
}

// request is what a fetch asks for.
type request struct {
	want  Hash
	depth int
	haves []Hash
}

// encode returns the request in protocol v0 or v2. All that is to be said is said at once.
func (q request) encode(v2 bool) *bytes.Buffer {
	var b bytes.Buffer
	line := func(text string) { b.WriteString(pkt(text + "\n")) }
	options := []string{"ofs-delta", "no-progress"}
	if q.depth == 0 {
		options = append(options, "thin-pack")
	}
	if v2 {
		line("command=fetch")
		line("agent=" + userAgent)
		b.WriteString("0001")
		for _, o := range options {
			line(o)
		}
		line("want " + q.want.String())
	} else {
		line("want " + q.want.String() + " side-band-64k " + strings.Join(options, " ") + " agent=" + userAgent)
	}
	if q.depth > 0 {
		line(fmt.Sprintf("deepen %d", q.depth))
	}
	if !v2 {
		b.WriteString("0000")
	}
	for _, h := range q.haves {
		line("have " + h.String())
	}
	line("done")
	if v2 {
		b.WriteString("0000")
	}
	return &b
}

// fetchPack asks for q and returns the pack. Over HTTP one request does, as the remote need not be heard first.
func (r *Remote) fetchPack(ctx context.Context, q request) ([]byte, error) {
	if !r.overSSH() {
		w := &httpWire{remote: r, service: uploadPack, header: http.Header{}}
		body := q.encode(false)
		answer, err := w.ask(ctx, body, int64(body.Len()))
		if err != nil {
			return nil, err
		}
		pack, err := readPack(answer, r.Limits.PackBytes)
		return pack, w.close(err)
	}
	w, err := r.connectSSH(ctx, uploadPack, true)
	if err != nil {
		return nil, err
	}
	v2, err := skipGreeting(w)
	if err != nil {
		return nil, w.close(err)
	}
	answer, err := w.ask(ctx, q.encode(v2), 0)
	if err != nil {
		return nil, w.close(err)
	}
	pack, err := readPack(answer, r.Limits.PackBytes)
	return pack, w.close(err)
}

// skipGreeting reads what git-upload-pack says first and tells whether it speaks protocol v2.
func skipGreeting(w wire) (v2 bool, err error) {
	lines := newPktReader(w.greeting(), maxList)
	first, ok, err := lines.text()
	if err != nil || !ok {
		return false, orSilent(err)
	}
	return first == "version 2", skipLines(lines)
}

// readPack takes the pack out of an answer: lines about shallow commits and common ones, then side bands
// (gitprotocol-pack), or the sections of protocol v2, which hold the same.
func readPack(body io.Reader, limit int64) ([]byte, error) {
	// Each line of the side band costs five bytes; a remote that sends many short ones is cut off too.
	lines := newPktReader(body, limit+limit/8+64<<10)
	var pack bytes.Buffer
	for {
		line, kind, err := lines.next()
		switch {
		case errors.Is(err, io.EOF), kind == aFlush && pack.Len() > 0:
			return pack.Bytes(), nil
		case err != nil:
			return nil, fmt.Errorf("read pack: %w", err)
		case kind != aLine, len(line) == 0, isNotice(line):
		case line[0] == 1:
			pack.Write(line[1:])
		case line[0] == 2: // progress, for people
		case line[0] == 3, bytes.HasPrefix(line, []byte("ERR ")):
			return nil, errors.New("the remote refuses: the commit may be gone, try again")
		default:
			return nil, corrupt("the remote sent a line of an unknown kind")
		}
		if int64(pack.Len()) > limit {
			return nil, fmt.Errorf("%w: the pack has more than %d bytes", ErrTooLarge, limit)
		}
	}
}

// isNotice tells lines that a client which keeps no repository, and says everything at once, need not act on.
func isNotice(line []byte) bool {
	for _, start := range []string{
		"shallow ", "unshallow ", "NAK", "ACK ", "ready", "acknowledgments\n", "shallow-info\n", "packfile\n",
	} {
		if bytes.HasPrefix(line, []byte(start)) {
			return true
		}
	}
	return false
}

func packSum(body []byte) []byte {
	sum := hash.New(hash.CryptoType)
	_, _ = sum.Write(body) // a hash takes everything
	return sum.Sum(nil)
}

// object is one object of a fetched pack.
type object struct {
	kind plumbing.ObjectType
	data []byte
}

// packParser reads a pack from memory and counts what its objects take.
type packParser struct {
	pack   []byte
	limits Limits
	// outside finds bases that are not in the pack; nil where there must be none.
	outside func(Hash) (object, error)
	left    int64
	// at finds whole objects by where they start; chain is the number of deltas under each.
	at    map[int64]object
	chain map[int64]int
	byID  map[Hash]int64
}

// parsePack reads every object of a pack. Deltas may refer to earlier objects of the same pack only, which is the
// order that servers write, and to what outside finds.
func parsePack(pack []byte, limits Limits, outside func(Hash) (object, error)) (map[Hash]object, error) {
	const trailer = hashLen
	if len(pack) < packHeader+trailer || !bytes.HasPrefix(pack, []byte("PACK\x00\x00\x00\x02")) {
		return nil, corrupt("the answer holds no pack of version 2")
	}
	body, sum := pack[:len(pack)-trailer], pack[len(pack)-trailer:]
	if !bytes.Equal(packSum(body), sum) {
		return nil, corrupt("the pack does not match its checksum: it was cut off or changed on its way")
	}
	count := binary.BigEndian.Uint32(pack[8:packHeader])
	if int64(count) > int64(limits.Objects) {
		return nil, fmt.Errorf("%w: the pack has more than %d objects", ErrTooLarge, limits.Objects)
	}
	p := &packParser{
		pack: body, limits: limits, outside: outside, left: limits.InflatedBytes,
		at: make(map[int64]object, count), chain: map[int64]int{}, byID: make(map[Hash]int64, count),
	}
	offset := int64(packHeader)
	for range count {
		next, err := p.entry(offset)
		if err != nil {
			return nil, err
		}
		offset = next
	}
	if offset != int64(len(body)) {
		return nil, corrupt("the pack holds more than its objects")
	}
	objects := make(map[Hash]object, count)
	for id, offset := range p.byID {
		objects[id] = p.at[offset]
	}
	return objects, nil
}

// entry reads the entry at offset and says where the next one starts.
func (p *packParser) entry(offset int64) (next int64, err error) {
	if offset >= int64(len(p.pack)) {
		return 0, corrupt("the pack is cut off")
	}
	e := &rawEntry{raw: p.pack[offset:]}
	if err := e.parseHeader(offset); err != nil {
		return 0, err
	}
	data, rest, err := p.inflate(e)
	if err != nil {
		return 0, err
	}
	found := object{kind: e.kind, data: data}
	if e.delta() {
		if found, err = p.patch(offset, e, data); err != nil {
			return 0, err
		}
	}
	p.at[offset] = found
	p.byID[hashObject(found.kind, found.data)] = offset
	return int64(len(p.pack) - rest), nil
}

// take counts bytes before they are made.
func (p *packParser) take(size int64) error {
	if size < 0 || size > p.left {
		return fmt.Errorf("%w: the objects have more than %d bytes", ErrTooLarge, p.limits.InflatedBytes)
	}
	p.left -= size
	return nil
}

// inflate inflates the body of e, which must be of the size that it says, and returns how many bytes of the pack are
// left behind it.
func (p *packParser) inflate(e *rawEntry) (data []byte, rest int, err error) {
	if err := p.take(e.size); err != nil {
		return nil, 0, err
	}
	in := bytes.NewReader(e.body) // an io.ByteReader: nothing behind the stream is consumed
	z, err := inflaters.get(in)
	if err != nil {
		return nil, 0, corrupt("an object does not inflate: %v", err)
	}
	defer inflaters.put(z)
	if data, err = readExactly(z, e.size); err != nil {
		return nil, 0, corrupt("an object does not inflate: %v", err)
	}
	return data, in.Len(), nil
}

// patch applies the delta of e to its base.
func (p *packParser) patch(offset int64, e *rawEntry, delta []byte) (object, error) {
	base, length, err := p.base(e)
	if err != nil {
		return object{}, err
	}
	if p.chain[offset] = length + 1; p.chain[offset] > maxDeltaChain {
		return object{}, corrupt("chain of deltas is too long")
	}
	target := deltaTarget(delta)
	if target > uint64(p.limits.InflatedBytes) { //nolint:gosec // G115: a limit is positive
		return object{}, fmt.Errorf("%w: the objects have more than %d bytes", ErrTooLarge, p.limits.InflatedBytes)
	}
	if err := p.take(int64(target)); err != nil { //nolint:gosec // G115: compared with the limit before
		return object{}, err
	}
	data, err := packfile.PatchDelta(base.data, delta)
	if err != nil {
		return object{}, corrupt("a delta does not apply: %v", err)
	}
	return object{kind: base.kind, data: data}, nil
}

// base finds the base of a delta and how many deltas that is made of.
func (p *packParser) base(e *rawEntry) (base object, chain int, err error) {
	start, inside := e.base, true
	if e.kind == plumbing.REFDeltaObject {
		start, inside = p.byID[e.baseHash]
	}
	if base, ok := p.at[start]; ok && inside {
		return base, p.chain[start], nil
	}
	if e.kind == plumbing.REFDeltaObject && p.outside != nil {
		if base, err := p.outside(e.baseHash); !errors.Is(err, fs.ErrNotExist) {
			return base, 0, err
		}
	}
	return object{}, 0, corrupt("a delta's base is not in the pack before it")
}

// checkout reads the files of the commit tip from objects.
func checkout(objects map[Hash]object, tip Hash) (*Snapshot, error) {
	c, ok := objects[tip]
	if !ok || c.kind != plumbing.CommitObject {
		return nil, corrupt("the remote sent another commit than %s", tip)
	}
	commit, err := ParseCommit(c.data)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Commit: commit, Files: map[string][]byte{}}
	w := walker{objects: objects, files: s.Files, left: maxFetchFiles}
	if err := w.walk(commit.Tree, "", 1); err != nil {
		return nil, err
	}
	return s, nil
}

// walker reads trees; left bounds the entries, as one tree may be named from many places.
type walker struct {
	objects map[Hash]object
	files   map[string][]byte
	left    int
}

func (w *walker) walk(tree Hash, prefix string, depth int) error {
	if depth > maxFetchDepth {
		return corrupt("folders are nested more than %d deep", maxFetchDepth)
	}
	t, ok := w.objects[tree]
	if !ok || t.kind != plumbing.TreeObject {
		return corrupt("the remote left out a folder")
	}
	entries, err := parseTree(t.data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := prefix + e.Name
		if strings.ContainsFunc(e.Name, func(r rune) bool { return !strings.ContainsRune(fetchAlphabet, r) }) {
			return corrupt("a file has a name with other characters than a-z 0-9 . _ -")
		}
		if w.left--; w.left < 0 {
			return fmt.Errorf("%w: the commit has more files than allowed", ErrTooLarge)
		}
		if e.Dir {
			if err := w.walk(e.Hash, path+"/", depth+1); err != nil {
				return err
			}
			continue
		}
		blob, ok := w.objects[e.Hash]
		if !ok || blob.kind != plumbing.BlobObject {
			return corrupt("the remote left out a file")
		}
		w.files[path] = blob.data
	}
	return nil
}
