// Package gitserve serves the repository over Git's smart HTTP, to agents and people, in process.
//
// It speaks protocol v0 only (gitprotocol-http, gitprotocol-pack): version 2 lets a client ask for any object by its
// name, whatever references it is shown. A caller is shown the references of its Grant and no others, may want only
// what these are at or were at lately, and is told what it has only of their history. Pushes go to main only, by those
// who may, and count once a Receiver has accepted them.
package gitserve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// ErrDenied says that the credential is not valid.
var ErrDenied = errors.New("access denied")

// Access says who a caller is and what it may see.
type Access interface {
	// Authorize answers ErrDenied for a credential that is not valid; other errors are passing faults.
	Authorize(ctx context.Context, username, password string) (Grant, error)
}

// Grant is what one caller may see.
type Grant struct {
	// Name is who it is, for the log.
	Name string
	// All shows every reference; else Refs are shown, as far as they exist.
	All  bool
	Refs []string
	// Head is the reference that HEAD stands for; empty for no HEAD.
	Head string
	// Push lets the caller push to main; Role is what the receiver is told of his rights, in its own words.
	Push bool
	Role string
}

// Repository is what is served; *gitrepo.Repo is one.
type Repository interface {
	Ref(name string) (gitrepo.Hash, bool)
	Refs() map[string]gitrepo.Hash
	RefSeq() uint64
	Objects
}

// Objects reads commits and packs them.
type Objects interface {
	Commit(h gitrepo.Hash) (*gitrepo.Commit, error)
	Missing(wants, haves []gitrepo.Hash, depth int) (objects, shallow []gitrepo.Hash, err error)
	WritePack(w io.Writer, objects []gitrepo.Hash) error
	ReadIncoming(pack io.Reader, limits gitrepo.Limits) (*gitrepo.Incoming, error)
}

// Config is what a handler needs.
type Config struct {
	Repo   Repository
	Access Access
	Logger *slog.Logger
	// Receiver decides about pushes; nil refuses them all.
	Receiver Receiver
	// Packs is how many packs are made at once, and Queue how many callers wait for theirs before others are asked to
	// come again; 0 for twice the processors and 2,000.
	Packs int
	Queue int
}

const (
	// defaultQueue is how many callers wait for a pack. Each costs a connection, about 30 KiB.
	defaultQueue = 2000
	// patience is how long a caller waits before it is asked to come again: well below what clients allow an answer.
	patience = 20 * time.Second
	// A push may hold its pack and all objects in memory, so few are read at once.
	pushSlots = 2
	pushQueue = 100
)

type handler struct {
	repo     Repository
	access   Access
	log      *slog.Logger
	receiver Receiver
	packs    *gate
	pushes   *gate
	// all is the last advertisement of everything.
	all atomic.Pointer[advertisement]
}

// New returns the handler of one repository. It is mounted with its prefix stripped.
func New(cfg Config) http.Handler {
	if cfg.Packs <= 0 {
		cfg.Packs = 2 * runtime.GOMAXPROCS(0)
	}
	if cfg.Queue <= 0 {
		cfg.Queue = defaultQueue
	}
	h := &handler{
		repo: cfg.Repo, access: cfg.Access, log: cfg.Logger, receiver: cfg.Receiver,
		packs: newGate(cfg.Packs, cfg.Queue, patience), pushes: newGate(pushSlots, pushQueue, patience),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info/refs", h.granted(h.infoRefs))
	mux.HandleFunc("POST /git-upload-pack", h.granted(h.uploadPack))
	mux.HandleFunc("POST /git-receive-pack", h.granted(h.receivePack))
	return mux
}

// granted authenticates the caller of next.
func (h *handler) granted(next func(http.ResponseWriter, *http.Request, Grant)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache, private")
		username, password, ok := r.BasicAuth()
		grant, err := Grant{}, ErrDenied
		if ok {
			grant, err = h.access.Authorize(r.Context(), username, password)
		}
		switch {
		case errors.Is(err, ErrDenied):
			w.Header().Set("WWW-Authenticate", `Basic realm="Certferry", charset="UTF-8"`)
			http.Error(w, "Give the name of a server and its credential, or your account's name and an access token.", http.StatusUnauthorized)
		case err != nil:
			h.log.ErrorContext(r.Context(), "git access not decided", slog.Any("error", err))
			w.Header().Set("Retry-After", "10")
			http.Error(w, "Try again in a moment.", http.StatusServiceUnavailable)
		default:
			next(w, r, grant)
		}
	}
}

func refusePush(w http.ResponseWriter, _ *http.Request, _ Grant) {
	http.Error(w, "You may read this repository and not push to it: ask an administrator for the role operator.", http.StatusForbidden)
}

// ref is a reference as it is shown.
type ref struct {
	name string
	hash gitrepo.Hash
}

// visible lists the references that grant shows, in the order of their names.
func (h *handler) visible(grant Grant) []ref {
	var refs []ref
	if grant.All {
		for name, hash := range h.repo.Refs() {
			refs = append(refs, ref{name, hash})
		}
	} else {
		for _, name := range grant.Refs {
			if hash, ok := h.repo.Ref(name); ok {
				refs = append(refs, ref{name, hash})
			}
		}
	}
	slices.SortFunc(refs, func(a, b ref) int { return compare(a.name, b.name) })
	return refs
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

// capabilities are those of gitprotocol-capabilities that the handler has.
const capabilities = "multi_ack_detailed no-done side-band-64k ofs-delta shallow no-progress object-format=sha1 agent=certferry"

// infoRefs advertises the references. The ETag covers all of them, so that a poll without news has no body.
func (h *handler) infoRefs(w http.ResponseWriter, r *http.Request, grant Grant) {
	switch service := r.URL.Query().Get("service"); service {
	case "git-upload-pack":
	case "git-receive-pack":
		if h.receiver == nil || !grant.Push {
			refusePush(w, r, grant)
			return
		}
		w.Header().Set("Content-Type", "application/x-git-receive-pack-advertisement")
		_, _ = w.Write(advertise("git-receive-pack", receiveCapabilities, h.visible(grant), ""))
		return
	default:
		http.Error(w, "Only Git's smart HTTP is served here: use a newer git.", http.StatusForbidden)
		return
	}
	a := h.advertisement(grant)
	w.Header().Set("ETag", a.etag)
	if r.Header.Get("If-None-Match") == a.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
	_, _ = w.Write(a.body)
}

// advertisement is what a fetching caller is shown.
type advertisement struct {
	seq  uint64
	head string
	body []byte
	etag string
}

// advertisement makes what grant is shown, or finds it: that of everything is long and changes at each commit only.
func (h *handler) advertisement(grant Grant) *advertisement {
	seq := h.repo.RefSeq()
	if a := h.all.Load(); grant.All && a != nil && a.seq == seq && a.head == grant.Head {
		return a
	}
	a := &advertisement{seq: seq, head: grant.Head, body: advertise("git-upload-pack", capabilities, h.visible(grant), grant.Head)}
	sum := sha256.Sum256(a.body)
	a.etag = `"` + hex.EncodeToString(sum[:16]) + `"`
	if grant.All {
		h.all.Store(a)
	}
	return a
}

func advertise(service, caps string, refs []ref, head string) []byte {
	var out bytes.Buffer
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		fmt.Fprintf(&out, "%04x%s", len(text)+4, text)
	}
	line("# service=%s\n", service)
	out.WriteString("0000")
	if i := slices.IndexFunc(refs, func(r ref) bool { return r.name == head }); i >= 0 {
		caps += " symref=HEAD:" + head
		refs = slices.Insert(slices.Clone(refs), 0, ref{"HEAD", refs[i].hash})
	}
	if len(refs) == 0 {
		line("%s capabilities^{}\x00%s\n", gitrepo.Hash{}, caps)
	}
	for i, r := range refs {
		if i == 0 {
			line("%s %s\x00%s\n", r.hash, r.name, caps)
		} else {
			line("%s %s\n", r.hash, r.name)
		}
	}
	out.WriteString("0000")
	return out.Bytes()
}
