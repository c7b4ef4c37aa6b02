package daemon_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitserve"
	"github.com/certferry/certferry/gitstore/gitstoretest"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub/apiv1"
)

const (
	repoID     = "repo-1"
	site       = "example.com"
	joinToken  = "cfj_token"
	credential = "cfa_credential"
)

// world is a hub with its repository, a site that serves what the agent deploys, and a clock.
type world struct {
	t                  *testing.T
	root, sign, escrow *seal.PrivateKey
	ca                 *deployertest.CA
	store              *gitstore.Store
	server             *httptest.Server
	site               *site443
	cfg                daemon.Config
	clock              atomic.Int64
	// hubDown and gitDown are what answers 503; badReports refuses reports with that status.
	hubDown, gitDown atomic.Bool
	badReports       atomic.Int32
	// played, if set, answers in place of the hub's own Git remote.
	played atomic.Pointer[gitstoretest.Remote]

	mu         sync.Mutex
	tokenUsed  bool
	agentKey   *seal.PublicKey
	register   func(*apiv1.Registration)
	heartbeats []apiv1.HeartbeatRequest
	// keepBeats lets heartbeats wait until the agent gives them up.
	keepBeats atomic.Bool
	reports   []apiv1.ReportRequest
	beatReply apiv1.HeartbeatReply
	// offered is the key that the agent offered last; takeOffers makes it the server's at once.
	offered    *seal.PublicKey
	takeOffers bool
	// requests are what the agent answered to beatReply.CertificateRequests; badRequests refuses them with that status.
	requests    []apiv1.CertificateRequest
	badRequests int
	// caCert and caKey sign requests.
	caCert *x509.Certificate
	caKey  crypto.Signer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, beatReply: apiv1.HeartbeatReply{State: "approved", IntervalSeconds: 1}}
	w.clock.Store(time.Now().Truncate(time.Second).UnixNano())
	w.ca = deployertest.NewCA(t, w.now())
	w.root, w.sign, w.escrow = w.key("root"), w.key("hub"), w.key("escrow")
	w.openStore()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/servers/register", w.serveRegister)
	mux.HandleFunc("POST /api/v1/servers/heartbeat", w.serveHeartbeat)
	mux.HandleFunc("POST /api/v1/certificates/sync", w.serveReport)
	mux.HandleFunc("POST /api/v1/servers/rotate-key", w.serveOffer)
	mux.HandleFunc("POST /api/v1/servers/csr", w.serveCSR)
	git := http.StripPrefix("/git/certferry.git", gitserve.New(gitserve.Config{Repo: w.store.Repo(), Access: w, Logger: w.logger()}))
	mux.HandleFunc("/git/certferry.git/", func(rw http.ResponseWriter, r *http.Request) {
		if w.gitDown.Load() {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if remote := w.played.Load(); remote != nil {
			remote.ServeHTTP(rw, r)
			return
		}
		git.ServeHTTP(rw, r)
	})
	w.server = httptest.NewServer(mux)
	t.Cleanup(w.server.Close)
	dir := t.TempDir()
	w.site = startSite(t)
	w.cfg = daemon.Config{
		StateDir: filepath.Join(dir, "state"), Policy: filepath.Join(dir, "policy.yaml"), PollInterval: 100 * time.Millisecond,
		LogLevel: "info", LogFormat: "text",
	}
	w.policy("")
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) now() time.Time       { return time.Unix(0, w.clock.Load()).UTC() }
func (w *world) pass(d time.Duration) { w.clock.Add(int64(d)) }
func (w *world) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w.t.Output(), nil)) }
func (w *world) env() daemon.Environment {
	return daemon.Environment{Version: "v1", Now: w.now, Logger: w.logger()}
}

func (w *world) key(name string) *seal.PrivateKey {
	w.t.Helper()
	k, err := seal.Generate(name, w.now().Add(-time.Hour))
	w.must(err)
	return k
}

func (w *world) openStore() {
	w.t.Helper()
	public, err := w.sign.Public().Armor()
	w.must(err)
	ring := &manifest.Keyring{
		Format: manifest.Format, RepoID: repoID, Version: 1, IssuedAt: w.now(),
		Keys: []manifest.KeyringKey{{Fingerprint: w.sign.Fingerprint(), PublicKey: string(public)}},
	}
	data, err := ring.Encode()
	w.must(err)
	sig, err := seal.Sign(manifest.KeyringSignatureDomain, data, w.root, w.now())
	w.must(err)
	w.store, err = gitstore.Open(gitstore.Config{
		Dir: w.t.TempDir(), RepoID: repoID, Hub: w.sign, Escrow: w.escrow, Keyring: data, KeyringSig: sig,
		Committer: gitrepo.Person{Name: "Certferry hub", Email: "hub@example.com"}, Now: w.now,
	})
	w.must(err)
	w.t.Cleanup(func() { w.must(w.store.Close()) })
}

// policy writes the policy; reload, if set, stands for the site's own reload command.
func (w *world) policy(reload string) {
	w.t.Helper()
	if reload == "" {
		reload = fmt.Sprintf("[/bin/touch, %q]", w.site.reload)
	}
	text := fmt.Sprintf(`apiVersion: certferry/v1
kind: Policy
targets:
  web:
    deployer: files
    certificate: %s
    key: %s
    names: [%s]
    reload: %s
    probe: {addresses: [%q], timeout: 1s}
`, w.site.cert, w.site.key, site, reload, w.site.address)
	w.must(os.WriteFile(w.cfg.Policy, []byte(text), 0o600))
}

// Authorize implements gitserve.Access.
func (w *world) Authorize(_ context.Context, username, password string) (gitserve.Grant, error) {
	if username != "web-1" || password != credential {
		return gitserve.Grant{}, gitserve.ErrDenied
	}
	return gitserve.Grant{Name: username, Refs: []string{manifest.ServerBranch("web-1")}}, nil
}

func problem(rw http.ResponseWriter, status int, detail string) {
	rw.Header().Set("Content-Type", "application/problem+json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(apiv1.Problem{Title: http.StatusText(status), Status: status, Detail: detail})
}

// take reads a request of the agent into v and says whether to go on.
func (w *world) take(rw http.ResponseWriter, r *http.Request, v any) bool {
	if w.hubDown.Load() {
		problem(rw, http.StatusServiceUnavailable, "down")
		return false
	}
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		problem(rw, http.StatusBadRequest, err.Error())
		return false
	}
	return true
}

func answer(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(v)
}

func (w *world) serveRegister(rw http.ResponseWriter, r *http.Request) {
	var in apiv1.RegisterRequest
	if !w.take(rw, r, &in) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	key, err := seal.ParsePublicKey([]byte(in.PublicKey))
	if in.Token != joinToken || w.tokenUsed || err != nil {
		problem(rw, http.StatusForbidden, "the join token is used or expired")
		return
	}
	w.tokenUsed, w.agentKey = true, key
	root, err := w.root.Public().Armor()
	if err != nil {
		problem(rw, http.StatusInternalServerError, err.Error())
		return
	}
	out := apiv1.Registration{
		Server: in.Name, Fingerprint: key.Fingerprint(), Credential: credential, State: "pending", RepoID: repoID,
		GitURL: w.server.URL + "/git/certferry.git", RootKey: string(root),
	}
	if w.register != nil {
		w.register(&out)
	}
	answer(rw, out)
}

func (w *world) serveHeartbeat(rw http.ResponseWriter, r *http.Request) {
	var in apiv1.HeartbeatRequest
	if !w.take(rw, r, &in) {
		return
	}
	w.mu.Lock()
	w.heartbeats = append(w.heartbeats, in)
	reply := w.beatReply
	w.mu.Unlock()
	if w.keepBeats.Load() {
		<-r.Context().Done()
		return
	}
	answer(rw, reply)
}

func (w *world) serveOffer(rw http.ResponseWriter, r *http.Request) {
	var in apiv1.OfferKeyRequest
	if !w.take(rw, r, &in) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	key, err := seal.ParsePublicKey([]byte(in.PublicKey))
	if err != nil {
		problem(rw, http.StatusUnprocessableEntity, err.Error())
		return
	}
	if key.Fingerprint() != w.agentKey.Fingerprint() {
		domain := manifest.ServerKeyDomain(repoID, "web-1")
		if _, err := seal.Verify(domain, []byte(in.PublicKey), []byte(in.Signature), []*seal.PublicKey{w.agentKey}, w.now()); err != nil {
			problem(rw, http.StatusForbidden, err.Error())
			return
		}
	}
	w.offered = key
	state := "pending"
	if w.takeOffers {
		w.agentKey, state = key, "taken"
		w.beatReply.RotateKey = false
	}
	answer(rw, apiv1.OfferedKey{Fingerprint: key.Fingerprint(), State: state})
}

func (w *world) serveReport(rw http.ResponseWriter, r *http.Request) {
	var in apiv1.ReportRequest
	if !w.take(rw, r, &in) {
		return
	}
	if status := w.badReports.Load(); status != 0 {
		problem(rw, int(status), "no")
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, in)
	rw.WriteHeader(http.StatusNoContent)
}

// taken returns the reports that came since the last call.
func (w *world) taken() []apiv1.ReportRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	reports := slices.Clone(w.reports)
	w.reports = nil
	return reports
}

func (w *world) request() daemon.EnrollRequest {
	return daemon.EnrollRequest{HubURL: w.server.URL + "/", Name: "web-1", Token: joinToken, RootFingerprint: w.root.Fingerprint()}
}

// agent enrols web-1, where that was not done yet, and opens it.
func (w *world) agent() *daemon.Agent {
	w.t.Helper()
	if w.agentKey == nil {
		_, err := daemon.Enroll(w.t.Context(), w.cfg, "v1", w.request(), w.env())
		w.must(err)
	}
	a, err := daemon.New(w.cfg, w.env())
	w.must(err)
	return a
}

// publish makes b what web-1 shall serve and returns the commit.
func (w *world) publish(b *bundle.Bundle) string {
	w.t.Helper()
	snapshot, err := w.store.Snapshot()
	w.must(err)
	got, err := w.store.Publish(w.t.Context(), snapshot.Commit, []gitstore.ServerState{{
		Server: "web-1", Key: w.agentKey,
		Deployments: []gitstore.Wanted{{Certificate: site, Deployer: "files", Target: "web", Bundle: b}},
	}})
	w.must(err)
	w.must(got[0].Err)
	return got[0].Commit
}

// issue makes a certificate that is a second younger than the one before.
func (w *world) issue() *bundle.Bundle {
	w.t.Helper()
	w.ca.Now = w.ca.Now.Add(time.Second)
	return w.ca.Issue(w.t, site)
}

// deployed runs a cycle that must deploy commit and b.
func (w *world) deployed(a *daemon.Agent, commit string, b *bundle.Bundle) {
	w.t.Helper()
	result, err := a.Once(w.t.Context())
	w.must(err)
	if result.Commit != commit || len(result.Outcomes) != 1 || result.Outcomes[0].State != "deployed" || result.Outcomes[0].LeafSHA256 != b.LeafSHA256() {
		w.t.Fatalf("result %+v, want %s deployed", result, commit)
	}
	w.site.wantServed(b)
}

// once runs a cycle that must end with want.
func (w *world) once(a *daemon.Agent, want error) {
	w.t.Helper()
	w.onceSays(a, want, "")
}

// onceSays runs a cycle that must end with want and this text.
func (w *world) onceSays(a *daemon.Agent, want error, text string) {
	w.t.Helper()
	if _, err := a.Once(w.t.Context()); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		w.t.Fatalf("once: %v, want %v with %q", err, want, text)
	}
}

func (w *world) status(a *daemon.Agent) daemon.Status {
	w.t.Helper()
	s, err := a.Status()
	w.must(err)
	return s
}

// site443 is a TLS server in this process. It loads its files when the reload command left its mark, which it looks
// for at each handshake.
type site443 struct {
	t                          *testing.T
	address, cert, key, reload string
	mu                         sync.Mutex
	pair                       *tls.Certificate
}

func startSite(t *testing.T) *site443 {
	t.Helper()
	dir := t.TempDir()
	s := &site443{t: t, cert: filepath.Join(dir, "site.pem"), key: filepath.Join(dir, "site.key"), reload: filepath.Join(dir, "reload")}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if os.Remove(s.reload) == nil {
			if pair, err := tls.LoadX509KeyPair(s.cert, s.key); err == nil {
				s.pair = &pair
			}
		}
		if s.pair == nil {
			return nil, errors.New("no certificate yet")
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*s.pair}}, nil
	}}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.address = server.Listener.Addr().String()
	return s
}

// wantServed wants b on disk and in clients' hands.
func (s *site443) wantServed(b *bundle.Bundle) {
	s.t.Helper()
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: site}}
	conn, err := dialer.DialContext(s.t.Context(), "tcp", s.address)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	if c, ok := conn.(*tls.Conn); !ok || !c.ConnectionState().PeerCertificates[0].Equal(b.Leaf) {
		s.t.Errorf("another certificate is served, want %s", b.Leaf.SerialNumber)
	}
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil || !pair.Leaf.Equal(b.Leaf) {
		s.t.Errorf("files hold another certificate: %v", err)
	}
}
