package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/alexedwards/argon2id"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/httpapi"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/vault"
	"github.com/certferry/certferry/issuer"
)

const (
	password  = "a ferry crosses the water"
	rootPrint = "0123456789ABCDEF0123456789ABCDEF01234567"
	webLeaf   = "aa00000000000000000000000000000000000000000000000000000000000000"
	oldLeaf   = "bb00000000000000000000000000000000000000000000000000000000000000"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// world is a hub's API over a real database and real authentication, with Git and intent stood in for.
type world struct {
	tb       testing.TB
	db       *database.DB
	auth     *auth.Auth
	fleet    *fleet
	store    *gitstore.Store
	rollouts *rollouts
	vault    *vault.Vault
	// tested is what a test of a credential answers.
	tested func(issuer.Challenge, string, func(issuer.Event)) error
	intent *intentLog
	log    *logBuffer
	cfg    httpapi.Config
	srv    *httptest.Server

	mu    sync.Mutex
	now   time.Time
	ready error
}

// newWorld starts a hub; change may alter its configuration.
func newWorld(tb testing.TB, change ...func(*httpapi.Config)) *world {
	tb.Helper()
	w := &world{tb: tb, now: start, log: &logBuffer{}, fleet: newFleet(), intent: &intentLog{}}
	var err error
	w.db, err = database.Open(tb.Context(), filepath.Join(tb.TempDir(), "hub.db"), w.clock)
	w.must(err)
	tb.Cleanup(func() { _ = w.db.Close() })
	w.auth, err = auth.New(auth.Config{
		Store: w.db, SigningKey: bytes.Repeat([]byte{7}, 32), Now: w.clock,
		Argon2: &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32},
	})
	w.must(err)
	w.intent.fleet = w.fleet
	w.store = hubtest.NewStore(tb, w.clock)
	w.rollouts = &rollouts{}
	w.vault = vault.New(vault.Config{
		Store: w.db, Seal: w.store.SealSecret, Open: w.store.OpenSecret, Now: w.clock,
		Providers: func() ([]issuer.DNSHook, error) {
			return []issuer.DNSHook{{
				Hook: "dns_cloud", Title: "Cloud", Site: "https://cloud.example",
				Options:     []issuer.DNSOption{{Name: "CLOUD_Key", Secret: true}, {Name: "CLOUD_Zone", Optional: true}},
				Alternative: []issuer.DNSOption{{Name: "CLOUD_Token", Secret: true}, {Name: "CLOUD_Account"}},
			}}, nil
		},
		Test: func(_ context.Context, c issuer.Challenge, domain string, tell func(issuer.Event)) error {
			return w.tested(c, domain, tell)
		},
	})
	w.cfg = httpapi.Config{
		Data: w.db, Auth: w.auth, Intent: w.intent, Fleet: w.fleet, Commits: w.store,
		Rollouts: w.rollouts, Proposals: w.store, Orders: canceller{w.db}, Credentials: w.vault,
		IssuerIntent: w.intent, CAs: testCAs{w},
		RenewAt: func(_ *manifest.Certificate, have *manifest.IssuedCertificate) time.Time {
			return have.NotAfter.Add(-30 * 24 * time.Hour)
		},
		Ready:     func(context.Context) error { return w.notReady() },
		Console:   fstest.MapFS{"index.html": {Data: []byte("<!doctype html>console")}, "assets/a.js": {Data: []byte("js")}},
		PublicURL: "http://hub.example.com", RepoID: "repo-1", RootKey: "root key", RootFingerprint: rootPrint,
		Version: "0.1.0", HeartbeatInterval: time.Minute, Now: w.clock,
		Logger: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&w.cfg)
	}
	h, err := httpapi.New(w.cfg)
	w.must(err)
	w.srv = httptest.NewServer(h)
	tb.Cleanup(w.srv.Close)
	return w
}

func (w *world) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) notReady() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ready
}

// person makes an account and logs it in; the answer is its access token.
func (w *world) person(name string, role apiv1.Role) string {
	w.tb.Helper()
	_, err := w.auth.CreateUser(w.tb.Context(), hub.Principal{Kind: hub.Person, Name: "root"}, name, password, role)
	w.must(err)
	l, err := w.auth.Login(w.tb.Context(), name, password, "")
	w.must(err)
	return l.Access
}

// agent registers a server through the database; the answer is its credential.
func (w *world) agent(name string, state hub.ServerState) string {
	w.tb.Helper()
	ctx := w.tb.Context()
	_, tokenHash := auth.NewToken(auth.JoinPrefix)
	w.must(w.db.InsertJoinToken(ctx, hub.JoinToken{Hash: tokenHash, Server: name, ExpiresAt: w.clock().Add(time.Minute)}, hub.AuditEvent{}))
	credential, hash := auth.NewCredential()
	w.must(w.db.InsertServer(ctx, hub.Server{
		Name: name, State: state, Fingerprint: printOf(name), PublicKey: "key", CredentialHash: hash, CreatedAt: w.clock(),
	}, tokenHash, hub.AuditEvent{}))
	w.fleet.addServer(name, map[string]string{"role": "web"})
	return credential
}

func printOf(name string) string {
	return strings.ToUpper((strings.Repeat("0", 40) + hexOf(name))[len(hexOf(name)):])
}

func hexOf(s string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(digits[s[i]>>4])
		b.WriteByte(digits[s[i]&15])
	}
	return b.String()
}

// reply is an answer, read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) problem(t *testing.T) apiv1.Problem {
	t.Helper()
	var p apiv1.Problem
	if r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("not a problem document but %s: %s", r.header.Get("Content-Type"), r.body)
	}
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Errorf("%v: %s", err, r.body)
	}
	if p.Status != r.status || p.Title == "" || p.Detail == "" || p.RequestID == "" || p.RequestID != r.header.Get("X-Request-Id") {
		t.Errorf("the problem lacks something: %s", r.body)
	}
	return p
}

func decode[T any](tb testing.TB, r reply) T {
	tb.Helper()
	var v T
	if r.status > 299 {
		tb.Fatalf("status %d: %s", r.status, r.body)
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		tb.Fatalf("%v: %s", err, r.body)
	}
	return v
}

// send sends a request; body may be nil, a string, a reader or anything that is JSON.
func (w *world) send(method, path, token string, body any, headers ...string) reply {
	w.tb.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case io.Reader:
		r = b
	default:
		data, err := json.Marshal(b)
		w.must(err)
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(w.tb.Context(), method, w.srv.URL+path, r)
	w.must(err)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := w.srv.Client().Do(req)
	w.must(err)
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	w.must(err)
	answer := reply{status: res.StatusCode, header: res.Header, body: data}
	if err := checkContract(method, path, answer); err != nil {
		w.tb.Errorf("%s %s: %v", method, path, err)
	}
	return answer
}

func (w *world) get(path, token string) reply { return w.send(http.MethodGet, path, token, nil) }

// audit answers the newest row.
func (w *world) audit() hub.AuditEvent {
	w.tb.Helper()
	rows, err := w.db.AuditEvents(w.tb.Context(), 0, 1)
	w.must(err)
	if len(rows) == 0 {
		return hub.AuditEvent{}
	}
	return rows[0]
}

// logBuffer keeps the log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// fleet is a repository in memory.
type fleet struct {
	mu        sync.Mutex
	err       error
	snap      gitstore.Snapshot
	tips      map[string]*gitstore.Tip
	commits   []*gitrepo.Commit
	histories map[string][]gitstore.ServerCommit
}

func newFleet() *fleet {
	return &fleet{
		snap: gitstore.Snapshot{
			Commit: strings.Repeat("1", 40), Certificates: map[string]*manifest.Certificate{}, Servers: map[string]*manifest.Server{},
			Issuers: map[string]*manifest.Issuer{
				"private": {Name: "private", Type: "privateca"},
				"le":      {Name: "le", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://acme.example/dir"}},
			},
			Issued: map[string]*manifest.IssuedCertificate{},
		},
		tips: map[string]*gitstore.Tip{}, histories: map[string][]gitstore.ServerCommit{},
	}
}

// Snapshot implements httpapi.Fleet; like the real one its answer is never changed.
func (f *fleet) Snapshot() (*gitstore.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.snap
	s.Certificates, s.Servers = maps.Clone(s.Certificates), maps.Clone(s.Servers)
	s.Issued, s.Issuers = maps.Clone(s.Issued), maps.Clone(s.Issuers)
	return &s, f.err
}

func (f *fleet) ServerTip(server string) (*gitstore.Tip, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if tip, ok := f.tips[server]; ok {
		return tip, nil
	}
	return nil, fs.ErrNotExist
}

func (f *fleet) CertificateHistory(_ string, limit int) ([]*gitrepo.Commit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commits[:min(limit, len(f.commits))], nil
}

func (f *fleet) ServerHistory(server string, limit int) ([]gitstore.ServerCommit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.histories[server]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return h[:min(limit, len(h))], nil
}

func (f *fleet) edit(fn func(*fleet)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(f)
}

func (f *fleet) addServer(name string, labels map[string]string) {
	f.edit(func(f *fleet) { f.snap.Servers[name] = &manifest.Server{Name: name, Labels: labels} })
}

func (f *fleet) addCertificate(c *manifest.Certificate, issued *manifest.IssuedCertificate) {
	f.edit(func(f *fleet) {
		f.snap.Certificates[c.Name] = c
		if issued != nil {
			f.snap.Issued[c.Name] = issued
		}
	})
}

// intentLog stands in for the service that writes intent.
type intentLog struct {
	fleet *fleet

	mu    sync.Mutex
	calls []string
	err   error
}

func (i *intentLog) note(parts ...string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.calls = append(i.calls, strings.Join(parts, " "))
	return i.err
}

func (i *intentLog) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
}

func (i *intentLog) last() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.calls) == 0 {
		return ""
	}
	return i.calls[len(i.calls)-1]
}

func (i *intentLog) CreateCertificate(_ context.Context, actor hub.Principal, requestID string, spec apiv1.CertificateSpec) error {
	if requestID == "" {
		return errors.New("no request id")
	}
	if err := i.note("create", actor.Name, spec.Name); err != nil {
		return err
	}
	i.fleet.addCertificate(&manifest.Certificate{Name: spec.Name, Names: spec.Names, Issuer: spec.Issuer}, nil)
	return nil
}

func (i *intentLog) RenewCertificate(_ context.Context, actor hub.Principal, _, name string, req apiv1.RenewRequest) (hub.Job, error) {
	reason := req.Reason
	return hub.Job{ID: "job-1", Kind: apiv1.JobIssue, Certificate: name, State: apiv1.JobQueued, Reason: reason}, i.note("renew", actor.Name, name, reason)
}

func (i *intentLog) RollbackCertificate(_ context.Context, actor hub.Principal, _, name, commit, reason string) error {
	return i.note("rollback-certificate", actor.Name, name, commit, reason)
}

func (i *intentLog) ResumeCertificate(_ context.Context, actor hub.Principal, _, name string) error {
	return i.note("resume-certificate", actor.Name, name)
}

func (i *intentLog) EnsureServer(_ context.Context, name string, labels map[string]string) error {
	if err := i.note("ensure", name); err != nil {
		return err
	}
	i.fleet.addServer(name, labels)
	return nil
}

func (i *intentLog) RollbackServer(_ context.Context, actor hub.Principal, _, name, commit, reason string) error {
	return i.note("rollback-server", actor.Name, name, commit, reason)
}

func (i *intentLog) ResumeServer(_ context.Context, actor hub.Principal, _, name string) error {
	return i.note("resume-server", actor.Name, name)
}

// publicKey makes an agent's key.
func publicKey(t *testing.T) string {
	t.Helper()
	k, err := seal.Generate("agent", start)
	if err != nil {
		t.Fatal(err)
	}
	armored, err := k.Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	return string(armored)
}

func sortedOperations(t *testing.T) []string {
	t.Helper()
	doc, err := httpapi.Document()
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		t.Fatal(err)
	}
	var out []string
	for path, methods := range d.Paths {
		for method, op := range methods {
			out = append(out, op.OperationID+" "+strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(out)
	return out
}
