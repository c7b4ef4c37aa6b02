// This file renews certificates through acme.sh at Pebble, with as many workers as people would start by hand: what the
// hub puts around acme.sh must not cost throughput.

package main

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec" //nolint:depguard // the peer that is measured
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/issuertest"
)

const (
	// serveACME makes this program the CA of a folder, and the web server for its challenges.
	serveACME = "serve-acme"
	// issueWorkers order at a time, on both sides.
	issueWorkers = 4
	// issueRounds share the orders, so that both sides see the same moods of the machine.
	issueRounds = 5
	webroot     = "webroot"
)

// servePebble serves a CA until stdin ends. It prints the URL of its directory.
func servePebble(ctx context.Context, dir string, stdin io.Reader, stdout io.Writer) (err error) {
	// Each order is to prove its names anew, as it must be some day.
	if err := os.Setenv("PEBBLE_AUTHZREUSE", "0"); err != nil {
		return err
	}
	p, err := issuertest.StartPebble(ctx, issuertest.PebbleConfig{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", p.HTTPPort))
	if err != nil {
		return err
	}
	site := &http.Server{Handler: http.FileServer(http.Dir(filepath.Join(dir, webroot))), ReadHeaderTimeout: time.Second}
	go func() { _ = site.Serve(l) }()
	defer func() { err = errors.Join(err, site.Close()) }()
	if _, err := fmt.Fprintln(stdout, p.Directory); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}

// issueBench is a CA, the hub's driver and store, and a folder of acme.sh's for each worker by hand.
type issueBench struct {
	script, dir, directory string
	driver                 *acmesh.Issuer
	store                  *gitstore.Store
	rounds, each           int // each is how many renewals a worker makes in a round
	round                  int
	previous               [issueWorkers][]byte
	own                    []float64 // processor time of this process for each certificate, in ms
	whole                  []float64 // that of acme.sh and what it runs included
	byHand                 []float64
}

// benchIssue measures renewals.
func benchIssue(ctx context.Context, r *Report) (err error) {
	script := os.Getenv("ACME_SH") //nolint:forbidigo // as tests do: the real acme.sh is not part of the project
	if script == "" {
		r.note("issue: ACME_SH is not set to the real acme.sh: not measured")
		return nil
	}
	dir, err := os.MkdirTemp("", "certferry-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &issueBench{script: script, dir: dir, rounds: min(issueRounds, r.Size(issueRounds*2))}
	b.each = max(1, r.Size(200)/issueWorkers/b.rounds)
	if err := os.Mkdir(filepath.Join(dir, webroot), 0o700); err != nil {
		return err
	}
	stop, err := b.startCA(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.store.Close()) }()
	total := b.each * issueWorkers * b.rounds
	err = r.Compare(ctx, Comparison{
		Name: fmt.Sprintf("issue.renew-%d-by-%d", total, issueWorkers), Unit: "/min", More: true, Rounds: b.rounds,
		Ours: b.ours, Peer: "acme.sh by hand", PeerRun: b.peer, Goal: Goal{Ratio: 0.95},
	})
	if err != nil {
		return err
	}
	r.note("issue: with acme.sh and what it runs, a renewal takes %s ms of processor time through the hub, %s ms by hand", figure(median(b.whole)), figure(median(b.byHand)))
	r.print(Comparison{Name: "issue.own-cpu", Unit: "ms", Peer: "acme.sh by hand", Goal: Goal{Limit: 50}}, median(b.own), median(b.byHand))
	return nil
}

func (b *issueBench) startCA(ctx context.Context) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, serveACME, b.dir) //nolint:gosec // G204: this program itself
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { _, _ = in.Close(), cmd.Wait() }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, fmt.Errorf("start the CA: %w", err)
	}
	b.directory = strings.TrimSpace(line)
	return stop, nil
}

// prepare orders every certificate for the first time, on both sides.
func (b *issueBench) prepare(ctx context.Context) error {
	f, err := newFleet(0)
	if err != nil {
		return err
	}
	if b.store, err = f.open(filepath.Join(b.dir, "hub.git")); err != nil {
		return err
	}
	b.driver, err = acmesh.New(acmesh.Config{
		Script: b.script, StateDir: filepath.Join(b.dir, "state"), WorkDir: filepath.Join(b.dir, "work"), Directory: b.directory,
		Email: "bench@example.com", CABundle: b.bundle(), Now: clock, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	return b.parallel(func(worker int) error {
		return errors.Join(b.order(ctx, worker, "first"), b.hand(ctx, worker, "--issue", "--webroot", filepath.Join(b.dir, webroot), "--keylength", "ec-256", "-m", "bench@example.com"))
	})
}

func (b *issueBench) bundle() string { return filepath.Join(b.dir, "pebble-ca.pem") }

// parallel runs do in all workers.
func (b *issueBench) parallel(do func(worker int) error) error {
	errs := make([]error, issueWorkers)
	var wait sync.WaitGroup
	for worker := range issueWorkers {
		wait.Go(func() { errs[worker] = do(worker) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// rate renews with all workers, and returns the renewals in a minute. Processor times go to own and whole.
func (b *issueBench) rate(own, whole *[]float64, renew func(worker, n int) error) (float64, error) {
	b.round++
	self, children, err := usage()
	if err != nil {
		return 0, err
	}
	took, err := timed(func() error {
		return b.parallel(func(worker int) error {
			for n := range b.each {
				if err := renew(worker, n); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return 0, err
	}
	selfAfter, childrenAfter, err := usage()
	count := float64(b.each * issueWorkers)
	*whole = append(*whole, (selfAfter-self+childrenAfter-children)/count)
	if own != nil {
		*own = append(*own, (selfAfter-self)/count)
	}
	return count / took * 60_000, err
}

// ours is what the hub does for a renewal: a new key, the order, the check of what came, the commit.
func (b *issueBench) ours(ctx context.Context) (float64, error) {
	return b.rate(&b.own, &b.whole, func(worker, n int) error { return b.order(ctx, worker, fmt.Sprintf("%d-%d", b.round, n)) })
}

// peer is acme.sh with a folder for each worker, as its locks are none for parallel runs.
func (b *issueBench) peer(ctx context.Context) (float64, error) {
	return b.rate(nil, &b.byHand, func(worker, _ int) error { return b.hand(ctx, worker, "--renew", "--ecc", "--force") })
}

func (b *issueBench) hand(ctx context.Context, worker int, args ...string) error {
	home := filepath.Join(b.dir, fmt.Sprintf("home-%d", worker))
	args = append([]string{b.script, "--home", home, "--server", b.directory, "--ca-bundle", b.bundle(), "-d", fmt.Sprintf("hand-%d.test", worker)}, args...)
	cmd := exec.CommandContext(ctx, "/bin/sh", args...) //nolint:gosec // G204: the peer
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + home}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run acme.sh by hand: %w: %s", err, out)
	}
	return nil
}

func (b *issueBench) order(ctx context.Context, worker int, turn string) error {
	name := fmt.Sprintf("ours-%d.test", worker)
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	if err != nil {
		return err
	}
	csr, err := bundle.NewCSR(key, []string{name})
	if err != nil {
		return err
	}
	got, err := b.driver.Issue(ctx, issuer.Request{
		ID: fmt.Sprintf("bench-%d-%s", worker, turn), Names: []string{name}, CSR: csr,
		Previous:  b.previous[worker],
		Challenge: issuer.Challenge{Type: issuer.HTTP01, Method: webroot, Webroot: filepath.Join(b.dir, webroot)},
	})
	if err != nil {
		return err
	}
	b.previous[worker] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: got.Chain[0].Raw})
	_, err = b.store.PutIssued(ctx, gitstore.Issue{
		Certificate: name, Issued: manifest.IssuedCertificate{Issuer: "acme", KeyType: string(bundle.ECDSAP256)},
		Bundle: &bundle.Bundle{Leaf: got.Chain[0], Chain: got.Chain[1:], Key: key},
	})
	return err
}

// usage is the processor time of this process, and of its children that ended, in ms.
func usage() (self, children float64, err error) {
	for who, into := range map[int]*float64{syscall.RUSAGE_SELF: &self, syscall.RUSAGE_CHILDREN: &children} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			return 0, 0, fmt.Errorf("read processor time: %w", err)
		}
		*into = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
	}
	return self, children, nil
}
