package monitor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/monitor"
)

const day = 24 * time.Hour

// yard is a main branch that a test writes, and a monitor that watches it.
type yard struct {
	*testing.T

	clock *hubtest.Clock
	db    *database.DB
	snap  *gitstore.Snapshot
	cfg   monitor.Config
	m     *monitor.Monitor
}

func (y *yard) Snapshot() (*gitstore.Snapshot, error) { return y.snap, nil }

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{T: t, clock: hubtest.NewClock(), snap: &gitstore.Snapshot{
		Certificates: map[string]*manifest.Certificate{}, Issued: map[string]*manifest.IssuedCertificate{},
	}}
	var err error
	y.db, err = database.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), y.clock.Now)
	y.must(err)
	t.Cleanup(func() { y.must(y.db.Close()) })
	y.cfg = monitor.Config{
		Store: y, Watches: y.db, Alerts: y.db, Endpoints: y.db, Probe: monitor.Dial, Now: y.clock.Now,
		Random: func() float64 { return 0 }, Logger: slog.New(slog.DiscardHandler),
	}
	y.m = monitor.New(y.cfg)
	return y
}

func (y *yard) must(err error) {
	y.Helper()
	if err != nil {
		y.Fatal(err)
	}
}

// issue puts a certificate of 80 days on main.
func (y *yard) issue(name, leaf string) {
	y.snap.Certificates[name] = &manifest.Certificate{Name: name}
	y.snap.Issued[name] = &manifest.IssuedCertificate{
		Name: name, Names: []string{name}, Issuer: "ca", NotBefore: y.clock.Now(), NotAfter: y.clock.Now().Add(80 * day), LeafSHA256: leaf,
	}
	y.snap.Commit += "x"
}

// alerts are the open ones of a kind, as "object level".
func (y *yard) alerts(kind hub.AlertKind) string {
	y.Helper()
	all, err := y.db.Alerts(y.Context(), true, 0, 100)
	y.must(err)
	var texts []string
	for _, a := range all {
		if a.Kind == kind {
			texts = append(texts, a.Object+" "+string(a.Level))
		}
	}
	return strings.Join(texts, ", ")
}

func (y *yard) expect(want string) {
	y.Helper()
	y.must(y.m.Once(y.Context()))
	if got := y.alerts(hub.AlertCertificateExpiring); got != want {
		y.Errorf("alerts %q, want %q", got, want)
	}
}

func TestAlarmsAtAQuarterAndAnEighthOfTheLifetime(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.issue("shop", "leaf-1")
	y.expect("")
	y.clock.Advance(60*day - time.Second)
	y.expect("")
	y.clock.Advance(time.Second)
	y.expect("managed shop warning")
	y.m = monitor.New(y.cfg) // a restart changes nothing
	y.expect("managed shop warning")
	all, err := y.db.Alerts(t.Context(), true, 0, 10)
	y.must(err)
	if all[0].Count != 1 {
		t.Errorf("told %d times", all[0].Count)
	}
	y.clock.Advance(10 * day)
	y.expect("managed shop critical")
	y.clock.Advance(10 * day)
	y.expect("managed shop critical")
	if all, err = y.db.Alerts(t.Context(), true, 0, 10); err != nil || !strings.Contains(all[0].Message, "expired on") {
		t.Errorf("%+v, %v", all, err)
	}
	y.issue("shop", "leaf-2")
	y.expect("")
	// What nobody wishes for any more is nobody's worry.
	y.clock.Advance(79 * day)
	y.expect("managed shop critical")
	delete(y.snap.Certificates, "shop")
	y.snap.Commit += "x"
	y.expect("")
}

func TestFoundCertificatesAreWatchedUnlessTheHubManagesThem(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.issue("shop", "leaf-1")
	y.must(y.m.Once(t.Context()))
	found := func(object, leaf string) hub.Watch {
		return hub.Watch{Object: object, LeafSHA256: leaf, NotBefore: y.clock.Now(), NotAfter: y.clock.Now().Add(40 * day)}
	}
	y.must(y.m.Found(t.Context(), "web-1", []hub.Watch{found("old", "leaf-x"), found("site", "leaf-1")}))
	y.must(y.m.Found(t.Context(), "web-10", []hub.Watch{found("old", "leaf-y")}))
	y.clock.Advance(31 * day)
	y.expect("found web-10/old warning, found web-1/old warning")
	// It was replaced on one server, and is gone from the other.
	y.must(y.m.Found(t.Context(), "web-1", []hub.Watch{found("old", "leaf-z")}))
	y.expect("found web-10/old warning")
	y.must(y.m.Found(t.Context(), "web-10", nil))
	y.expect("")
}

// serve shows a certificate of 40 days for name on a port of loopback.
func (y *yard) serve(name string) string {
	y.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	y.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: y.clock.Now(), NotAfter: y.clock.Now().Add(40 * day),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	y.must(err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	y.must(err)
	y.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if c, ok := conn.(*tls.Conn); ok {
				_ = c.HandshakeContext(context.Background())
			}
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

func (y *yard) endpoint(e hub.Endpoint) {
	y.Helper()
	e.NextProbe = y.clock.Now()
	y.must(y.db.InsertEndpoint(y.Context(), e, hub.AuditEvent{Action: "test"}))
}

func TestEndpointsAreLookedAt(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.endpoint(hub.Endpoint{Name: "good", Address: y.serve("good.example"), ServerName: "good.example", Trust: "none"})
	y.endpoint(hub.Endpoint{Name: "other-name", Address: y.serve("x.example"), ServerName: "good.example", Trust: "none"})
	y.endpoint(hub.Endpoint{Name: "untrusted", Address: y.serve("good.example"), ServerName: "good.example", Trust: "system"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	y.must(err)
	y.must(l.Close())
	y.endpoint(hub.Endpoint{Name: "away", Address: l.Addr().String(), ServerName: "good.example", Trust: "none"})
	y.endpoint(hub.Endpoint{Name: "metadata", Address: "169.254.169.254:443", ServerName: "good.example", Trust: "none"})
	y.must(y.m.Once(t.Context()))
	faulty := y.alerts(hub.AlertEndpointFaulty)
	for _, want := range []string{"other-name critical", "untrusted critical"} {
		if !strings.Contains(faulty, want) {
			t.Errorf("alerts %q lack %q", faulty, want)
		}
	}
	if strings.Contains(faulty, "good") || strings.Contains(faulty, "away") {
		t.Errorf("alerts: %q", faulty)
	}
	for range 2 { // networks have hiccups
		y.clock.Advance(6 * time.Minute)
		y.must(y.m.Once(t.Context()))
	}
	if faulty = y.alerts(hub.AlertEndpointFaulty); !strings.Contains(faulty, "away warning") || !strings.Contains(faulty, "metadata warning") {
		t.Errorf("alerts: %q", faulty)
	}
	watches, err := y.db.Watches(t.Context(), hub.WatchEndpoint, "", 10)
	y.must(err)
	if len(watches) != 3 || watches[0].Object != "good" || watches[0].Names[0] != "good.example" || watches[1].Problem == "" {
		t.Errorf("%+v", watches)
	}
	y.clock.Advance(31 * day)
	y.must(y.m.Once(t.Context()))
	if got := y.alerts(hub.AlertCertificateExpiring); !strings.Contains(got, "endpoint good warning") {
		t.Errorf("alerts: %q", got)
	}
	y.must(y.db.DeleteEndpoint(t.Context(), "good", hub.AuditEvent{Action: "test"}))
	if err := y.db.DeleteEndpoint(t.Context(), "good", hub.AuditEvent{Action: "test"}); !errors.Is(err, hub.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

// TestEndpointRemovedWhileItIsLookedAt: nothing of it is left to raise an alarm that nobody could end.
func TestEndpointRemovedWhileItIsLookedAt(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.endpoint(hub.Endpoint{Name: "gone", Address: y.serve("x.example"), ServerName: "good.example", Trust: "none"})
	y.cfg.Probe = func(ctx context.Context, e hub.Endpoint) ([]*x509.Certificate, error) {
		defer func() { y.must(y.db.DeleteEndpoint(t.Context(), "gone", hub.AuditEvent{Action: "test"})) }()
		return monitor.Dial(ctx, e)
	}
	y.m = monitor.New(y.cfg)
	y.must(y.m.Once(t.Context()))
	watches, err := y.db.Watches(t.Context(), hub.WatchEndpoint, "", 10)
	y.must(err)
	if len(watches) != 0 || y.alerts(hub.AlertEndpointFaulty) != "" {
		t.Errorf("left: %+v, %q", watches, y.alerts(hub.AlertEndpointFaulty))
	}
}

// BenchmarkScan looks at 100,000 certificates of which ten are due, and beside it reads all of them.
func BenchmarkScan(b *testing.B) {
	db, err := database.Open(b.Context(), filepath.Join(b.TempDir(), "hub.db"), time.Now)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	now := time.Now()
	watches := make([]hub.Watch, 100_000)
	for i := range watches {
		w := hub.Watch{Kind: hub.WatchManaged, Object: "c" + big.NewInt(int64(i)).Text(36), LeafSHA256: "leaf", NotBefore: now, NotAfter: now.Add(90 * day)}
		w.Level, w.NextAt = w.LevelAt(now)
		if i%10_000 == 0 {
			w.NextAt = now.Add(-time.Minute)
		}
		watches[i] = w
	}
	if err := db.PutWatches(b.Context(), watches); err != nil {
		b.Fatal(err)
	}
	b.Run("due", func(b *testing.B) {
		for b.Loop() {
			if due, err := db.DueWatches(b.Context(), now, 1000); err != nil || len(due) != 10 {
				b.Fatal(len(due), err)
			}
		}
	})
	b.Run("walk", func(b *testing.B) {
		for b.Loop() {
			if all, err := db.Watches(b.Context(), "", "", 200_000); err != nil || len(all) != 100_000 {
				b.Fatal(len(all), err)
			}
		}
	})
}
