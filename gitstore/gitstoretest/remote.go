// Package gitstoretest plays Git remotes for tests: an honest one, and many that break or lie. Each is an http.Handler
// in this process that speaks just enough of Git's smart HTTP (gitprotocol-http) for an agent. The hostile ones are
// scripted, with all that an attacker may hold: the repository, old keys of the hub, other servers' states.
package gitstoretest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxBand is the most that a line of the side band holds.
const maxBand = 65515

// Remote serves one commit of one branch. Where a func is set, it answers instead.
type Remote struct {
	// Ref is the branch's full name, Tip what it is at: 40 hex digits, empty for no such branch.
	Ref, Tip string
	// Pack holds all objects of the commit.
	Pack []byte

	list  http.HandlerFunc
	fetch http.HandlerFunc
}

// Honest returns a remote that serves files on the branch ref.
func Honest(ref string, files map[string][]byte) *Remote {
	r := &Remote{Ref: ref}
	r.Tip, r.Pack = Pack(files)
	return r
}

// ServeHTTP implements http.Handler below any path.
func (r *Remote) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, io.LimitReader(req.Body, 1<<20)) // what is asked for does not matter here
	kind := "advertisement"
	if req.Method == http.MethodPost {
		kind = "result"
	}
	w.Header().Set("Content-Type", "application/x-git-upload-pack-"+kind)
	switch {
	case strings.HasSuffix(req.URL.Path, "/git-upload-pack") && r.fetch != nil:
		r.fetch(w, req)
	case strings.HasSuffix(req.URL.Path, "/git-upload-pack"):
		writeBands(w, r.Pack)
	case strings.HasSuffix(req.URL.Path, "/info/refs") && r.list != nil:
		r.list(w, req)
	case strings.HasSuffix(req.URL.Path, "/info/refs"):
		greet(w)
		if r.Tip != "" {
			write(w, line(r.Tip+" "+r.Ref+"\x00side-band-64k shallow ofs-delta\n"))
		}
		write(w, "0000")
	default:
		http.NotFound(w, req)
	}
}

// greet starts a list of references of protocol version 0.
func greet(w io.Writer) { write(w, line("# service=git-upload-pack\n")+"0000") }

// writeBands sends a pack as git-upload-pack does.
func writeBands(w io.Writer, data []byte) {
	write(w, line("NAK\n"))
	for len(data) > 0 {
		n := min(len(data), maxBand)
		write(w, band(1, data[:n]))
		data = data[n:]
	}
	write(w, "0000")
}

// line is a pkt-line (gitprotocol-common).
func line(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }

// band is a line of a side band: 1 for the pack, 2 for progress.
func band(channel byte, data []byte) string {
	return fmt.Sprintf("%04x%c%s", len(data)+5, channel, data)
}

// write sends text, and tells whether somebody still listens.
func write(w io.Writer, text string) bool {
	_, err := io.WriteString(w, text)
	return err == nil
}
