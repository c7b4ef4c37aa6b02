package reconcile_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/reconcile"
	"github.com/certferry/certferry/issuer"
)

const day = 24 * time.Hour

// world is a hub without its face: real store, real database, a CA that does as it is told.
type world struct {
	*testing.T

	clock *hubtest.Clock
	store *gitstore.Store
	db    *database.DB
	ca    *hubtest.CA
	cfg   reconcile.Config
	keys  map[string]*seal.PrivateKey
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, clock: hubtest.NewClock(), keys: map[string]*seal.PrivateKey{}}
	w.store = hubtest.NewStore(t, w.clock.Now)
	w.ca = hubtest.NewCA(t, w.clock.Now)
	db, err := database.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), w.clock.Now)
	w.must(err)
	t.Cleanup(func() { w.must(db.Close()) })
	w.db = db
	w.cfg = reconcile.Config{
		Store: w.store, Repo: w.store.Repo(), Data: w.db,
		Issuer:         func(*manifest.Issuer) (issuer.Issuer, error) { return w.ca, nil },
		Credentials:    func(string) (map[string]string, error) { return map[string]string{"TOKEN": "t"}, nil },
		KeyringVersion: 1, Domain: "example.com", Workers: 4, Interval: time.Hour,
		Alerts: w.db, WaveTimeout: time.Hour, OfflineAfter: 3 * time.Minute,
		Now: w.clock.Now, Logger: slog.New(slog.DiscardHandler),
		Random: func() float64 { return 0.5 },
	}
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// once runs a reconciler of its own, as after a restart.
func (w *world) once() {
	w.Helper()
	r, err := reconcile.New(w.cfg)
	w.must(err)
	w.must(r.Once(w.Context()))
}

// want puts a certificate on main.
func (w *world) want(name string, change func(*manifest.Certificate)) {
	w.Helper()
	c := &manifest.Certificate{Name: name, Names: []string{name}, Issuer: "private-ca"}
	if change != nil {
		change(c)
	}
	hubtest.Put(w, w.store, manifest.CertificatePath(name), c)
}

// enrol adds a server with a key of its own.
func (w *world) enrol(name string, state hub.ServerState, labels map[string]string) {
	w.Helper()
	key := hubtest.NewKey(w, name, w.clock.Now())
	public, err := key.Public().Armor()
	w.must(err)
	token := hub.JoinToken{Hash: "token-" + name, Server: name, CreatedAt: w.clock.Now(), ExpiresAt: w.clock.Now().Add(time.Hour)}
	w.must(w.db.InsertJoinToken(w.Context(), token, hub.AuditEvent{Action: "test"}))
	w.must(w.db.InsertServer(w.Context(), hub.Server{
		Name: name, State: state, Fingerprint: key.Fingerprint(), PublicKey: string(public),
		CredentialHash: "credential-" + name, CreatedAt: w.clock.Now(),
	}, token.Hash, hub.AuditEvent{Action: "test"}))
	w.keys[name] = key
	hubtest.Put(w, w.store, manifest.ServerPath(name), &manifest.Server{Name: name, Labels: labels})
}

func (w *world) snapshot() *gitstore.Snapshot {
	w.Helper()
	s, err := w.store.Snapshot()
	w.must(err)
	return s
}

// issued is what main has for a certificate.
func (w *world) issued(name string) *manifest.IssuedCertificate {
	w.Helper()
	c := w.snapshot().Issued[name]
	if c == nil {
		w.Fatalf("certificate %s was not issued", name)
	}
	return c
}

func (w *world) job(certificate string) hub.Job {
	w.Helper()
	job, err := w.db.LatestJob(w.Context(), certificate)
	w.must(err)
	return job
}

// ask queues a job, later than any before it: ids of jobs sort by time.
func (w *world) ask(job hub.Job) {
	w.Helper()
	w.clock.Advance(time.Second)
	_, _, err := w.db.EnqueueJob(w.Context(), job)
	w.must(err)
}

func (w *world) tip(server string) *gitstore.Tip {
	w.Helper()
	tip, err := w.store.ServerTip(server)
	w.must(err)
	return tip
}

// open is what the server reads: its bundle of a certificate, decrypted with its key.
func (w *world) open(server, certificate string) *bundle.Bundle {
	w.Helper()
	head, ok := w.store.Repo().Ref(manifest.ServerBranch(server))
	if !ok {
		w.Fatalf("server %s has no branch", server)
	}
	sealed, err := w.store.Repo().ReadFile(head, manifest.BundlePath(certificate))
	w.must(err)
	data, err := w.store.Repo().ReadFile(head, manifest.KeyringFile)
	w.must(err)
	keyring, err := manifest.DecodeKeyring(data)
	w.must(err)
	trusted, err := seal.ParsePublicKey([]byte(keyring.Keys[0].PublicKey))
	w.must(err)
	want := server
	i := slices.IndexFunc(w.tip(server).Manifest.Deployments, func(d manifest.Deployment) bool { return d.Certificate == certificate })
	var plain []byte
	if packet := w.tip(server).Manifest.Deployments[i].BundleKey; len(packet) > 0 {
		want = "" // a body that several servers share names none
		plain, err = seal.OpenShared(packet, sealed, w.keys[server], []*seal.PublicKey{trusted}, w.clock.Now())
		w.must(err)
	} else {
		plain, err = seal.Open(sealed, w.keys[server], []*seal.PublicKey{trusted}, w.clock.Now())
		w.must(err)
	}
	header, b, err := bundle.Decode(plain)
	w.must(err)
	if header.Server != want || header.Certificate != certificate {
		w.Fatalf("bundle for %s at %s says %+v", certificate, server, header)
	}
	return b
}

// at places a certificate on servers at the target web.
func at(servers ...string) func(*manifest.Certificate) {
	return func(c *manifest.Certificate) {
		for _, s := range servers {
			c.Deployments = append(c.Deployments, manifest.Placement{Server: s, Deployer: "nginx", Target: "web"})
		}
	}
}

// fails makes the CA answer with an error of a class.
func fails(class issuer.Class) func(context.Context, issuer.Request) error {
	return func(context.Context, issuer.Request) error {
		return &issuer.Error{Class: class, Detail: "as the test wants"}
	}
}

func (w *world) wantJob(certificate string, state apiv1.JobState, class issuer.Class) hub.Job {
	w.Helper()
	job := w.job(certificate)
	if job.State != state || job.ErrorClass != string(class) {
		w.Fatalf("job of %s is %s (%s: %s), want %s (%s)", certificate, job.State, job.ErrorClass, job.Error, state, class)
	}
	return job
}

var errTest = errors.New("as the test wants")

// due asks without a word from the CA.
func due(want *manifest.Certificate, have *manifest.IssuedCertificate, now time.Time) (reason string, due bool) {
	return reconcile.Due(want, have, nil, now)
}
