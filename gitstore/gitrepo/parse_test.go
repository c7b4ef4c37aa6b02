package gitrepo

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/hash"
	"github.com/google/go-cmp/cmp"
)

const (
	zeros     = "0000000000000000000000000000000000000000"
	emptyTree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
)

// TestCommitGolden compares a signed commit with its golden file.
func TestCommitGolden(t *testing.T) {
	t.Parallel()
	tree, err := ParseHash(emptyTree)
	if err != nil {
		t.Fatal(err)
	}
	c := &Commit{
		Tree: tree, Parents: []Hash{{1}, {2}},
		Author:    Person{Name: "Ada L.", Email: "ada@example.com", When: time.Unix(1800000000, 0)},
		Committer: Person{Name: "hub", When: time.Unix(1800000060, 0)},
		Message:   "subject\n\nbody\n\nActor: Ada",
	}
	data, err := encodeCommit(c, func([]byte) ([]byte, error) {
		return []byte("-----BEGIN PGP SIGNATURE-----\r\n\r\nabcd\r\n-----END PGP SIGNATURE-----\r\n"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile(filepath.Join("testdata", "commit.golden"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), string(data)); diff != "" {
		t.Errorf("commit (-golden +got):\n%s", diff)
	}
	again, err := ParseCommit(data)
	if err != nil {
		t.Fatal(err)
	}
	if again.Tree != tree || len(again.Parents) != 2 || again.Author.Name != "Ada L." || !again.Author.When.Equal(c.Author.When) ||
		again.Committer.Email != "" || again.Message != c.Message+"\n" {
		t.Errorf("parsed %+v", again)
	}
	unsigned, err := encodeCommit(c, nil)
	if err != nil || !bytes.Equal(unsigned, again.Payload) {
		t.Errorf("payload %q, want %q", again.Payload, unsigned)
	}
}

// TestParseCommitRefuses parses commits that two readers might read differently.
func TestParseCommitRefuses(t *testing.T) {
	t.Parallel()
	const person = "a <a@b> 1 +0000"
	head := "tree " + zeros + "\n"
	people := "author " + person + "\ncommitter " + person + "\n"
	sig := "gpgsig x\n y\n"
	for name, text := range map[string]string{
		"empty":                    "",
		"no message":               head + people,
		"no tree":                  people + "\nm",
		"short tree":               "tree 00\n" + people + "\nm",
		"upper-case tree":          "tree " + strings.Repeat("A", 40) + "\n" + people + "\nm",
		"two trees":                head + head + people + "\nm",
		"a tree at the end":        head + people + head + "\nm",
		"bad parent":               head + "parent x\n" + people + "\nm",
		"late parent":              head + people + "parent " + zeros + "\n\nm",
		"no author":                head + "committer " + person + "\n\nm",
		"no committer":             head + "author " + person + "\n\nm",
		"two committers":           head + people + "committer " + person + "\n\nm",
		"two signatures":           head + people + sig + sig + "\nm",
		"an early signature":       head + sig + people + "\nm",
		"a SHA-256 signature":      head + people + "gpgsig-sha256 x\n\nm",
		"an unknown header":        head + people + "x-header y\n\nm",
		"a header without key":     head + people + " folded\n\nm",
		"a header without value":   head + people + "encoding\n\nm",
		"a zero byte":              head + people + "encoding \x00\n\nm",
		"no email":                 head + "author a 1 +0000\ncommitter " + person + "\n\nm",
		"no end of email":          head + "author a <a 1 +0000\ncommitter " + person + "\n\nm",
		"doubled email":            head + "author a <a<b> 1 +0000\ncommitter " + person + "\n\nm",
		"no time":                  head + "author a <a>\ncommitter " + person + "\n\nm",
		"no zone":                  head + "author a <a> 1\ncommitter " + person + "\n\nm",
		"bad zone":                 head + "author a <a> 1 MEZ\ncommitter " + person + "\n\nm",
		"negative time":            head + "author a <a> -1 +0000\ncommitter " + person + "\n\nm",
		"text in place of numbers": head + "author a <a> one +0000\ncommitter " + person + "\n\nm",
	} {
		if _, err := ParseCommit([]byte(text)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := ParseCommit([]byte(head + "author a <a@b> 3600 +0100\ncommitter " + person + "\nencoding UTF-8\nmergetag x\n y\n\n"))
	if err != nil || c.Author.When.Unix() != 3600 || !bytes.Contains(c.Payload, []byte("mergetag x\n y\n")) {
		t.Errorf("unusual headers: %+v, %v", c, err)
	}
}

// TestParseTreeRefuses parses trees that could lead a reader astray.
func TestParseTreeRefuses(t *testing.T) {
	t.Parallel()
	h := strings.Repeat("h", 20)
	file := func(name string) string { return "100644 " + name + "\x00" + h }
	dir := func(name string) string { return "40000 " + name + "\x00" + h }
	for name, text := range map[string]string{
		"cut hash":         "100644 a\x00short",
		"no end of name":   "100644 a",
		"link":             "120000 a\x00" + h,
		"program":          "100755 a\x00" + h,
		"submodule":        "160000 a\x00" + h,
		"padded mode":      "040000 a\x00" + h,
		"empty name":       file(""),
		"here":             file("."),
		"up":               dir(".."),
		"slash":            file("a/b"),
		"git":              dir(".Git"),
		"space":            file("a b"),
		"control":          file("a\nb"),
		"not ASCII":        file("ä"),
		"too long":         file(strings.Repeat("a", 256)),
		"wrong order":      file("b") + file("a"),
		"wrong dir order":  dir("a") + file("a.b"),
		"doubled":          file("a") + file("a"),
		"doubled dir":      dir("a") + dir("a"),
		"file and folder":  file("a") + dir("a"),
		"twins far apart":  file("a") + file("a-b") + dir("a"),
		"twins and others": file("a") + file("a.b") + dir("a") + file("b"),
	} {
		if _, err := parseTree([]byte(text)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := file("a-") + file("a.b") + dir("a") + file("a0") + dir("ab")
	entries, err := parseTree([]byte(good))
	if err != nil || string(encodeTree(entries)) != good {
		t.Errorf("good tree: %v, %v", entries, err)
	}
	for _, e := range entries {
		if got, ok := findEntry(entries, e.Name); !ok || got != e {
			t.Errorf("find %s: %v, %v", e.Name, got, ok)
		}
	}
	if _, ok := findEntry(entries, "b"); ok {
		t.Error("found what is not there")
	}
}

// TestParseHash parses hashes of every wrong form.
func TestParseHash(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "0", zeros + "0", strings.Repeat("A", 40), strings.Repeat("g", 40), "-" + zeros[1:]} {
		if h, err := ParseHash(text); err == nil {
			t.Errorf("%q parsed as %s", text, h)
		}
	}
	h, err := ParseHash(emptyTree)
	if err != nil || h.String() != emptyTree || h.Short() != "4b825dc" || h.IsZero() || !(Hash{}).IsZero() {
		t.Errorf("%v, %v", h, err)
	}
	if got := hashObject(plumbing.TreeObject, nil); got != h {
		t.Errorf("empty tree hashes to %s", got)
	}
}

// TestCacheForgetsTheOldest fills a cache beyond its size.
func TestCacheForgetsTheOldest(t *testing.T) {
	t.Parallel()
	c := newCache[int](3)
	for i := range 3 {
		c.put(Hash{byte(i)}, i, 1)
	}
	c.get(Hash{0})
	c.put(Hash{3}, 3, 1)
	c.put(Hash{3}, 4, 1) // a hash has one value
	c.put(Hash{9}, 9, 4) // too large to keep
	for key, want := range map[byte]bool{0: true, 1: false, 2: true, 3: true, 9: false} {
		if v, ok := c.get(Hash{key}); ok != want || ok && v != int(key) {
			t.Errorf("%d: %d, %v", key, v, ok)
		}
	}
}

// TestSmallestPacksAreMerged checks which packs a merge takes, by their sizes.
func TestSmallestPacksAreMerged(t *testing.T) {
	t.Parallel()
	sizes := func(n int, size func(i int) int64) []*pack {
		out := make([]*pack, n)
		for i := range out {
			out[i] = &pack{size: size(i)}
		}
		return out
	}
	for name, tt := range map[string]struct {
		packs []*pack
		want  int
	}{
		"all alike":            {sizes(32, func(int) int64 { return 100 }), 32},
		"geometric":            {sizes(32, func(i int) int64 { return 1 << i }), 16},
		"small ones and a big": {append(sizes(31, func(int) int64 { return 100 }), &pack{size: 1 << 20}), 31},
		"a few":                {sizes(3, func(i int) int64 { return 1 << i }), 3},
	} {
		if got := len(smallest(tt.packs)); got != tt.want {
			t.Errorf("%s: %d packs, want %d", name, got, tt.want)
		}
	}
}

// TestEntryHeader writes and reads the sizes at which the header grows.
func TestEntryHeader(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 15, 16, 2047, 2048, 1 << 20, maxObject} {
		e := &rawEntry{raw: entryHeader(plumbing.BlobObject, size)}
		if err := e.parseHeader(packHeader); err != nil || e.size != int64(size) || e.kind != plumbing.BlobObject || len(e.body) != 0 {
			t.Errorf("size %d: %+v, %v", size, e, err)
		}
	}
}

// TestDeltaLimits resolves deltas that have no end or a huge result.
func TestDeltaLimits(t *testing.T) {
	t.Parallel()
	var chain []*rawEntry
	lookup := func(h Hash) (*pack, *rawEntry, error) { return &pack{}, chain[h[0]], nil }
	delta := func(target uint64, base byte) *rawEntry {
		data := []byte{3, byte(target), 0x90, 3} // copy three bytes
		if target > 127 {
			data = append(append([]byte{3}, bytes.Repeat([]byte{0xff}, 8)...), 0x01, 0x90, 3)
		}
		e, err := newEntry(plumbing.BlobObject, data, &fast)
		if err != nil {
			t.Fatal(err)
		}
		e.kind, e.baseHash = plumbing.REFDeltaObject, Hash{base}
		return e
	}
	blob, err := newEntry(plumbing.BlobObject, []byte("abc"), &stored)
	if err != nil {
		t.Fatal(err)
	}
	chain = []*rawEntry{blob, delta(3, 0), delta(3, 2), delta(1000, 0)}
	p := &pack{}
	if kind, data, err := p.resolve(chain[1], lookup, 0); err != nil || kind != plumbing.BlobObject || string(data) != "abc" {
		t.Errorf("delta: %v, %q, %v", kind, data, err)
	}
	for name, e := range map[string]*rawEntry{"a delta on itself": chain[2], "a huge target": chain[3]} {
		if _, _, err := p.resolve(e, lookup, 0); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseCommit expects that a payload parses as the commit without its signature.
func FuzzParseCommit(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "commit.golden"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte("tree " + zeros + "\nauthor a <b> 1 -0730\ncommitter a <b> 1 +0000\nencoding x\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCommit(data)
		if err != nil {
			return
		}
		if c.Signature == "" && !bytes.Equal(c.Payload, data) {
			t.Errorf("payload of an unsigned commit differs from it: %q", c.Payload)
		}
		if c.Hash != hashObject(plumbing.CommitObject, data) || len(c.Payload) > len(data) {
			t.Errorf("parsed %+v", c)
		}
		again, err := ParseCommit(c.Payload)
		if err != nil || again.Signature != "" || again.Tree != c.Tree || again.Message != c.Message {
			t.Errorf("payload parses differently: %+v, %v", again, err)
		}
	})
}

// FuzzParseTree expects that what parses is written back as it was.
func FuzzParseTree(f *testing.F) {
	f.Add([]byte("100644 a\x00aaaaaaaaaaaaaaaaaaaa40000 b\x00bbbbbbbbbbbbbbbbbbbb"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if entries, err := parseTree(data); err == nil && !bytes.Equal(encodeTree(entries), data) {
			t.Errorf("encodes as %q", encodeTree(entries))
		}
	})
}

// FuzzParsePackedRefs expects that what parses reads back after it was written.
func FuzzParsePackedRefs(f *testing.F) {
	f.Add([]byte(packedRefsHeader + zeros + " refs/heads/main\n^" + zeros + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		refs, err := parsePackedRefs(data)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := newRefState(refs, 0).encode(&out); err != nil {
			t.Fatal(err)
		}
		if again, err := parsePackedRefs(out.Bytes()); err != nil || !maps.Equal(refs, again) {
			t.Errorf("%v reads back as %v, %v", refs, again, err)
		}
	})
}

// samplePack writes a pack of three files.
func samplePack(tb testing.TB) *pack {
	tb.Helper()
	w, err := newPackWriter(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	for i := range 3 {
		text := strings.Repeat(strconv.Itoa(i), 50)
		e, err := newEntry(plumbing.BlobObject, []byte(text), &fast)
		if err != nil {
			tb.Fatal(err)
		}
		if err := w.add(hashObject(plumbing.BlobObject, []byte(text)), e); err != nil {
			tb.Fatal(err)
		}
	}
	p, err := w.finish()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.close(); err != nil {
			tb.Error(err)
		}
	})
	return p
}

// FuzzPackIndex gives each input a right checksum, so that the checks behind it are reached.
func FuzzPackIndex(f *testing.F) {
	p := samplePack(f)
	f.Add(p.idx.data[:len(p.idx.data)-hashLen], p.size)
	large := bytes.Clone(p.idx.data[:len(p.idx.data)-2*hashLen])
	copy(large[idxNames+3*(hashLen+4):], []byte{0x80, 0, 0, 0})
	large = append(large, 0, 0, 0, 0, 0, 0, 0, 12)
	f.Add(append(large, make([]byte, hashLen)...), p.size)
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		var packSum Hash
		copy(packSum[:], data[max(0, len(data)-hashLen):])
		sum := hash.New(hash.CryptoType)
		sum.Write(data)
		x, err := parsePackIndex(sum.Sum(bytes.Clone(data)), size, packSum)
		if err != nil {
			return
		}
		for i := range x.count {
			if at := x.offset(i); at < packHeader || x.end(at, size) <= at || x.end(at, size) > size {
				t.Errorf("object %d lies at %d to %d of %d", i, at, x.end(at, size), size)
			}
			x.find(Hash(x.name(i)))
			x.crc(i)
		}
	})
}

// FuzzPackEntry reads entries of any bytes.
func FuzzPackEntry(f *testing.F) {
	p := samplePack(f)
	for i := range p.idx.count {
		e, err := p.entryAt(i)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.raw, p.idx.offset(i))
	}
	f.Add([]byte{0x62, 0x81, 0x01, 'x'}, int64(1000))
	f.Add(append([]byte{0x72}, make([]byte, 30)...), int64(1000))
	f.Fuzz(func(t *testing.T, raw []byte, offset int64) {
		if len(raw) == 0 || offset < packHeader {
			return
		}
		e := &rawEntry{raw: raw}
		if err := e.parseHeader(offset); err != nil || e.size > 1<<20 {
			return
		}
		if e.kind == plumbing.OFSDeltaObject && (e.base <= 0 || e.base >= offset) {
			t.Errorf("base at %d of a delta at %d", e.base, offset)
		}
		if data, err := e.inflate(); err == nil && int64(len(data)) != e.size {
			t.Errorf("%d bytes, want %d", len(data), e.size)
		}
	})
}
