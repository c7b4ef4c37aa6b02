package gitrepo

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// packBuilder makes packs that no honest server would.
type packBuilder struct {
	body  bytes.Buffer
	count uint32
}

func (p *packBuilder) raw(kind plumbing.ObjectType, size int, prefix, data []byte) int64 {
	offset := int64(12 + p.body.Len())
	p.body.Write(entryHeader(kind, size))
	p.body.Write(prefix)
	z := zlib.NewWriter(&p.body)
	_, _ = z.Write(data)
	_ = z.Close()
	p.count++
	return offset
}

func (p *packBuilder) add(kind plumbing.ObjectType, data []byte) Hash {
	p.raw(kind, len(data), nil, data)
	return hashObject(kind, data)
}

func (p *packBuilder) bytes() []byte {
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), p.count)
	data := append(head, p.body.Bytes()...)
	return append(data, packSum(data)...)
}

func treeOf(entries ...string) []byte {
	var out bytes.Buffer
	for n := 0; n < len(entries); n += 3 {
		h, _ := ParseHash(entries[n+2])
		fmt.Fprintf(&out, "%s %s\x00%s", entries[n], entries[n+1], h[:])
	}
	return out.Bytes()
}

func commitOf(tree Hash, extra string) []byte {
	return fmt.Appendf(nil, "tree %s\n%sauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nm\n", tree, extra)
}

// remoteOf answers the given bytes to a fetch.
func remoteOf(t *testing.T, handler http.HandlerFunc) *Remote {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &Remote{URL: server.URL, Username: "web-1", Password: "secret", Limits: DefaultLimits}
}

// banded wraps a pack as upload-pack sends it.
func banded(pack []byte) []byte {
	var out bytes.Buffer
	out.WriteString(pkt("NAK\n"))
	for len(pack) > 0 {
		n := min(len(pack), 60000)
		fmt.Fprintf(&out, "%04x\x01%s", n+5, pack[:n])
		pack = pack[n:]
	}
	out.WriteString("0000")
	return out.Bytes()
}

// honest is a pack of one commit with one file.
func honest() (*packBuilder, Hash) {
	p := &packBuilder{}
	blob := p.add(plumbing.BlobObject, []byte("hello"))
	tree := p.add(plumbing.TreeObject, treeOf("100644", "manifest.json", blob.String()))
	return p, p.add(plumbing.CommitObject, commitOf(tree, ""))
}

func TestFetchReadsAnHonestPack(t *testing.T) {
	t.Parallel()
	p, tip := honest()
	r := remoteOf(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(banded(p.bytes())) })
	got, err := r.Fetch(t.Context(), "refs/heads/servers/web-1", tip)
	if err != nil || string(got.Files["manifest.json"]) != "hello" || got.Commit.Hash != tip {
		t.Fatalf("fetched %+v, %v", got, err)
	}
	if _, err := r.Fetch(t.Context(), "x", Hash{}); err == nil {
		t.Error("no commit was named, and something was fetched")
	}
}

func TestFetchAppliesDeltas(t *testing.T) {
	t.Parallel()
	p := &packBuilder{}
	base := bytes.Repeat([]byte("a"), 100)
	at := p.raw(plumbing.BlobObject, len(base), nil, base)
	// Copy 100 bytes from the start, insert "!" (gitformat-pack, "deltified representation").
	delta := []byte{100, 101, 0x90, 100, 1, '!'}
	back := int64(12+p.body.Len()) - at
	p.raw(plumbing.OFSDeltaObject, len(delta), []byte{byte(back)}, delta)
	id := hashObject(plumbing.BlobObject, base)
	p.raw(plumbing.REFDeltaObject, len(delta), id[:], delta)
	target := hashObject(plumbing.BlobObject, append(bytes.Clone(base), '!'))
	tree := p.add(plumbing.TreeObject, treeOf("100644", "a", target.String()))
	tip := p.add(plumbing.CommitObject, commitOf(tree, ""))
	objects, err := parsePack(p.bytes(), DefaultLimits, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := checkout(objects, tip)
	if err != nil || len(s.Files["a"]) != 101 {
		t.Errorf("delta gave %d bytes, %v", len(s.Files["a"]), err)
	}
}

// TestHostilePacks: each is refused, nothing is returned.
func TestHostilePacks(t *testing.T) {
	t.Parallel()
	var missing Hash
	missing[0] = 1
	type hostile struct {
		pack []byte
		tip  Hash
		want error
	}
	cases := map[string]hostile{}
	withTree := func(name string, tree func(blob Hash) []byte) {
		p := &packBuilder{}
		blob := p.add(plumbing.BlobObject, []byte("x"))
		h := p.add(plumbing.TreeObject, tree(blob))
		cases[name] = hostile{p.bytes(), p.add(plumbing.CommitObject, commitOf(h, "")), ErrCorrupt}
		c := cases[name]
		c.pack = p.bytes()
		cases[name] = c
	}
	for name, entry := range map[string][2]string{
		"symlink": {"120000", "a"}, "submodule": {"160000", "a"}, "executable": {"100755", "a"}, "parent": {"100644", ".."},
		".git": {"100644", ".git"}, "slash": {"100644", "a/b"}, "upper case": {"100644", "A"}, "space": {"100644", "a b"},
		"no name": {"100644", ""}, "dot": {"100644", "."},
	} {
		withTree(name, func(blob Hash) []byte { return treeOf(entry[0], entry[1], blob.String()) })
	}
	withTree("name twice", func(b Hash) []byte { return treeOf("100644", "a", b.String(), "100644", "a", b.String()) })
	withTree("file missing", func(Hash) []byte { return treeOf("100644", "a", missing.String()) })
	withTree("folder missing", func(Hash) []byte { return treeOf("40000", "a", missing.String()) })
	withTree("file as folder", func(b Hash) []byte { return treeOf("40000", "a", b.String()) })
	withTree("cut off tree", func(Hash) []byte { return []byte("100644 a\x00abc") })

	p := &packBuilder{}
	inner := p.add(plumbing.TreeObject, nil)
	for range 20 {
		inner = p.add(plumbing.TreeObject, treeOf("40000", "a", inner.String()))
	}
	tip := p.add(plumbing.CommitObject, commitOf(inner, ""))
	cases["deep folders"] = hostile{p.bytes(), tip, ErrCorrupt}

	p = &packBuilder{}
	blob := p.add(plumbing.BlobObject, []byte("x"))
	var wide []string
	for n := range 5000 {
		wide = append(wide, "100644", fmt.Sprintf("f%05d", n), blob.String())
	}
	h := p.add(plumbing.TreeObject, treeOf(wide...))
	tip = p.add(plumbing.CommitObject, commitOf(h, ""))
	cases["one file many times"] = hostile{p.bytes(), tip, ErrTooLarge}

	for name, extra := range map[string]string{
		"two trees":      "tree " + h.String() + "\n",
		"two signatures": "gpgsig a\ngpgsig b\n",
	} {
		p = &packBuilder{}
		tree := p.add(plumbing.TreeObject, nil)
		tip = p.add(plumbing.CommitObject, commitOf(tree, extra))
		cases[name] = hostile{p.bytes(), tip, ErrCorrupt}
	}

	p, tip = honest()
	good := p.bytes()
	cases["another commit"] = hostile{good, missing, ErrCorrupt}
	cases["a tip that is a file"] = hostile{good, hashObject(plumbing.BlobObject, []byte("hello")), ErrCorrupt}
	cases["cut off"] = hostile{good[:len(good)-5], tip, ErrCorrupt}
	cases["no pack"] = hostile{nil, tip, ErrCorrupt}
	cases["another version"] = hostile{append([]byte("PACK\x00\x00\x00\x03"), good[8:]...), tip, ErrCorrupt}
	flipped := bytes.Clone(good)
	flipped[20] ^= 1
	cases["flipped bit"] = hostile{flipped, tip, ErrCorrupt}
	p.count--
	cases["more than announced"] = hostile{p.bytes(), tip, ErrCorrupt}
	p.count += 2
	cases["fewer than announced"] = hostile{p.bytes(), tip, ErrCorrupt}
	p.count = 1 << 30
	cases["a billion objects"] = hostile{p.bytes(), tip, ErrTooLarge}

	delta := []byte{5, 5, 0x90, 5}
	for name, build := range map[string]func(p *packBuilder){
		"delta without base":  func(p *packBuilder) { p.raw(plumbing.REFDeltaObject, len(delta), missing[:], delta) },
		"delta on itself":     func(p *packBuilder) { p.raw(plumbing.OFSDeltaObject, len(delta), []byte{0}, delta) },
		"delta before start":  func(p *packBuilder) { p.raw(plumbing.OFSDeltaObject, len(delta), []byte{0x7f}, delta) },
		"delta of other size": func(p *packBuilder) { p.raw(plumbing.OFSDeltaObject, 99, []byte{1}, delta) },
		"delta that is noise": func(p *packBuilder) {
			p.add(plumbing.BlobObject, []byte("hello"))
			id := hashObject(plumbing.BlobObject, []byte("hello"))
			p.raw(plumbing.REFDeltaObject, 3, id[:], []byte{9, 9, 0})
		},
		"size that lies": func(p *packBuilder) { p.raw(plumbing.BlobObject, 3, nil, []byte("hello")) },
		"unknown type":   func(p *packBuilder) { p.raw(5, 1, nil, []byte("x")) },
	} {
		p := &packBuilder{}
		build(p)
		cases[name] = hostile{p.bytes(), tip, ErrCorrupt}
	}
	p = &packBuilder{}
	p.add(plumbing.BlobObject, []byte("hello"))
	last := hashObject(plumbing.BlobObject, []byte("hello"))
	for n := range 100 {
		data := fmt.Appendf(nil, "%05d", n)
		p.raw(plumbing.REFDeltaObject, 8, last[:], append([]byte{5, 5, 5}, data...))
		last = hashObject(plumbing.BlobObject, data)
	}
	cases["endless deltas"] = hostile{p.bytes(), tip, ErrCorrupt}
	p = &packBuilder{}
	p.add(plumbing.BlobObject, []byte("hello"))
	id := hashObject(plumbing.BlobObject, []byte("hello"))
	huge := append([]byte{5}, binary.AppendUvarint(nil, 1<<40)...)
	p.raw(plumbing.REFDeltaObject, len(huge), id[:], huge)
	cases["delta to a terabyte"] = hostile{p.bytes(), tip, ErrTooLarge}

	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := remoteOf(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(banded(tt.pack)) })
			got, err := r.Fetch(t.Context(), "refs/heads/servers/web-1", tt.tip)
			if !errors.Is(err, tt.want) || got != nil {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// TestBombIsNotInflated: a megabyte that would be a gigabyte costs no more than the limits.
func TestBombIsNotInflated(t *testing.T) {
	p := &packBuilder{}
	p.raw(plumbing.BlobObject, 1<<30, nil, make([]byte, 256<<20)) // says 1 GiB, holds a quarter
	pack := p.bytes()
	r := remoteOf(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(banded(pack)) })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := r.Fetch(t.Context(), "x", Hash{1})
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrCorrupt) {
		t.Errorf("bomb: %v", err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
		t.Errorf("the bomb cost %d MiB", grown>>20)
	}
}

func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	t.Cleanup(elsewhere.Close)
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		want   error
		says   string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, nil, "redirects"},
		"denied":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, ErrDenied, ""},
		"login":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, ErrDenied, ""},
		"broken":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, nil, "502"},
		"no git":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, nil, ""},
		"bad lines": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, pkt("# service=git-upload-pack\n")+"zzzz")
		}, nil, ""},
		"bad hash": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, pkt("# service=git-upload-pack\n")+"0000"+pkt("xyz refs/heads/x\n"))
		}, nil, ""},
		"many references": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, pkt("# service=git-upload-pack\n")+"0000")
			line := pkt(strings.Repeat("a", 40) + " refs/heads/servers/some-other-server\n")
			for range 1_000_000 {
				if _, err := io.WriteString(w, line); err != nil {
					return
				}
			}
		}, ErrTooLarge, ""},
		"refusal":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, pkt("ERR not our ref\n")) }, nil, ""},
		"odd line":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, pkt("hello\n")) }, nil, ""},
		"dropped line": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "00ffabc") }, nil, ""},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			line := fmt.Sprintf("%04x\x01%s", 60005, strings.Repeat("x", 60000))
			for {
				if _, err := io.WriteString(w, line); err != nil {
					return
				}
			}
		}, ErrTooLarge, ""},
		"endless progress": {func(w http.ResponseWriter, _ *http.Request) {
			line := fmt.Sprintf("%04x\x02%s", 60005, strings.Repeat("x", 60000))
			for {
				if _, err := io.WriteString(w, line); err != nil {
					return
				}
			}
		}, ErrTooLarge, ""},
		"a byte now and then": {func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				if _, err := io.WriteString(w, "0"); err != nil {
					return
				}
				if err := http.NewResponseController(w).Flush(); err != nil {
					return
				}
				select {
				case <-tick.C:
				case <-r.Context().Done():
					return
				}
			}
		}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := remoteOf(t, tt.answer)
			r.Limits.Timeout = 5 * time.Second
			if name == "a byte now and then" {
				r.Limits.Timeout = 300 * time.Millisecond
			}
			_, fetchErr := r.Fetch(t.Context(), "refs/heads/x", Hash{1})
			tip, pollErr := r.Poll(t.Context(), "refs/heads/x", "")
			if fetchErr == nil || pollErr == nil && !tip.Hash.IsZero() {
				t.Fatalf("fetch %v, poll %+v %v", fetchErr, tip, pollErr)
			}
			both := fmt.Sprintf("%v / %v", fetchErr, pollErr)
			if tt.want != nil && !errors.Is(fetchErr, tt.want) && !errors.Is(pollErr, tt.want) || !strings.Contains(both, tt.says) {
				t.Errorf("%s, want %v %s", both, tt.want, tt.says)
			}
			if strings.Contains(both, "secret") {
				t.Errorf("the credential is in the error: %s", both)
			}
		})
	}
}

func TestRetryAfterAndBadURLs(t *testing.T) {
	t.Parallel()
	r := remoteOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	tip, err := r.Poll(t.Context(), "refs/heads/x", "")
	if err == nil || tip.RetryAfter != 7*time.Second {
		t.Errorf("busy remote: %+v %v", tip, err)
	}
	for _, url := range []string{"file:///etc", "ssh://host/x", "https://a:b@host/x", "http://[", "ftp://x"} {
		bad := &Remote{URL: url, Limits: DefaultLimits}
		if _, err := bad.Poll(t.Context(), "x", ""); err == nil || strings.Contains(err.Error(), "a:b") {
			t.Errorf("%s: %v", url, err)
		}
	}
	for text, want := range map[string]time.Duration{"": 0, "x": 0, "-1": 0, "999999": time.Hour} {
		if got := retryAfter(&http.Response{Header: http.Header{"Retry-After": {text}}}); got != want {
			t.Errorf("Retry-After %q: %s", text, got)
		}
	}
}

// TestPollOfAForeignServer asks a real git http-backend by protocol v2: one reference of several, in a small answer.
func TestPollOfAForeignServer(t *testing.T) {
	t.Parallel()
	execPath, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("skipped: git is not installed")
	}
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main", ".")
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	git("add", "manifest.json")
	git("commit", "-q", "-m", "first")
	for n := range 20 {
		git("branch", fmt.Sprintf("servers/web-%d", n))
	}
	want := git("rev-parse", "servers/web-7")
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(execPath)), "git-http-backend"), Root: "/",
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"},
	}
	var mostBytes int
	r := remoteOf(t, func(w http.ResponseWriter, req *http.Request) {
		if p := req.Header.Get("Git-Protocol"); p != "" {
			req.Header.Set("Git-Protocol", p)
		}
		recorder := httptest.NewRecorder()
		handler := *backend
		handler.Env = append(handler.Env, "GIT_PROTOCOL="+req.Header.Get("Git-Protocol"))
		handler.ServeHTTP(recorder, req)
		mostBytes = max(mostBytes, recorder.Body.Len())
		maps.Copy(w.Header(), recorder.Header())
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
	})
	r.URL += "/.git"
	tip, err := r.Poll(t.Context(), "refs/heads/servers/web-7", "")
	if err != nil || tip.Hash.String() != want {
		t.Fatalf("poll: %+v %v, want %s", tip, err, want)
	}
	if mostBytes > 400 {
		t.Errorf("a poll took %d bytes", mostBytes)
	}
	got, err := r.Fetch(t.Context(), "refs/heads/servers/web-7", tip.Hash)
	if err != nil || string(got.Files["manifest.json"]) != "{}" {
		t.Errorf("fetch from a stock server: %v", err)
	}
}

func FuzzParsePack(f *testing.F) {
	p, tip := honest()
	f.Add(p.bytes())
	f.Fuzz(func(_ *testing.T, data []byte) {
		// The checksum is no secret: a hostile remote gets it right.
		if len(data) > 20 {
			data = append(data[:len(data)-20:len(data)-20], packSum(data[:len(data)-20])...)
		}
		if objects, err := parsePack(data, Limits{PackBytes: 1 << 20, InflatedBytes: 1 << 20, Objects: 100}, nil); err == nil {
			_, _ = checkout(objects, tip)
		}
	})
}

func FuzzAdvertisement(f *testing.F) {
	f.Add([]byte(pkt("# service=git-upload-pack\n") + "0000" + pkt(strings.Repeat("a", 40)+" refs/heads/x\x00caps\n") + "0000"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if rest, err := skipService(bytes.NewReader(data), uploadPack); err == nil {
			_, _ = listOver(t.Context(), &httpWire{remote: &Remote{}, first: rest}, []string{"refs/"}, 1<<20, keepAll([]string{"refs/"}, map[string]Hash{}))
		}
		_, _ = readStatus(newPktReader(bytes.NewReader(data), 1<<20))
		_, _ = readPack(bytes.NewReader(data), 1<<20)
	})
}
