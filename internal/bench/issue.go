// This file renews certificates through a whole hub, beside acme.sh with as many workers as people would start by hand:
// what the hub puts around acme.sh must not cost throughput, and little of the processors.

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec" //nolint:depguard // the peer that is measured, and servers of their own processes
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

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

// issueBench is a CA, a hub, and a folder of acme.sh's for each worker by hand. Each side has certs certificates.
type issueBench struct {
	script, dir, directory string
	rounds, certs          int
	hub                    *hubProcess
	ours, byHand           []float64 // processor time for each certificate of a round, in ms, with all that was run
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
	b.certs = max(1, r.Size(200)/issueWorkers/b.rounds) * issueWorkers
	if err := os.Mkdir(filepath.Join(dir, webroot), 0o700); err != nil {
		return err
	}
	lines, stop, err := serveSelf(ctx, nil, serveACME, b.dir)
	if err != nil {
		return fmt.Errorf("start the CA: %w", err)
	}
	defer stop()
	if b.directory, err = lines.ReadString('\n'); err != nil {
		return fmt.Errorf("start the CA: %w", err)
	}
	b.directory = strings.TrimSpace(b.directory)
	if b.hub, err = startHub(ctx, b); err != nil {
		return err
	}
	defer b.hub.stop()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	err = r.Compare(ctx, Comparison{
		Name: fmt.Sprintf("issue.renew-%d-by-%d", b.certs*b.rounds, issueWorkers), Unit: "/min", More: true, Rounds: b.rounds,
		Ours: b.throughHub, Peer: "acme.sh by hand", PeerRun: b.withHands, Goal: Goal{Ratio: 0.95},
	})
	if err != nil {
		return err
	}
	r.note("issue: ours is a whole hub: API, queue, ledger, order log, ARI, signed commits; left out are the preflight, as the names are in no DNS, limits, as the CA publishes none, and the hub's own log")
	r.note("issue: each of %d certificates is renewed %d times; by hand acme.sh makes no new key and writes no log", b.certs, b.rounds)
	overhead := make([]float64, b.rounds)
	for n := range overhead {
		overhead[n] = b.ours[n] - b.byHand[n]
	}
	r.print(Comparison{Name: "issue.overhead-cpu", Unit: "ms", Peer: "acme.sh by hand in all", Goal: Goal{Limit: 50}}, median(overhead), median(b.byHand))
	return nil
}

// serveSelf runs this program as a server of its own, which ends when its stdin does, and reads what it says.
func serveSelf(ctx context.Context, env []string, args ...string) (said *bufio.Reader, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...) //nolint:gosec // G204: this program itself
	cmd.Stderr, cmd.Env = os.Stderr, append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return bufio.NewReader(out), func() { _, _ = in.Close(), cmd.Wait() }, nil
}

// prepare orders every certificate for the first time, on both sides.
func (b *issueBench) prepare(ctx context.Context) error {
	if err := b.hub.create(ctx, b); err != nil {
		return err
	}
	return b.parallel(ctx, "--issue", "--webroot", filepath.Join(b.dir, webroot), "--keylength", "ec-256", "-m", "bench@example.com")
}

func (b *issueBench) bundle() string { return filepath.Join(b.dir, "pebble-ca.pem") }

// throughHub renews all certificates of the hub, and returns the renewals in a minute.
func (b *issueBench) throughHub(ctx context.Context) (float64, error) {
	return b.rate(&b.ours, b.hub.cpu, func() error { return b.hub.renewAll(ctx) })
}

// withHands is acme.sh with a folder for each worker, as its locks are none for parallel runs.
func (b *issueBench) withHands(ctx context.Context) (float64, error) {
	return b.rate(&b.byHand, childrenCPU, func() error { return b.parallel(ctx, "--renew", "--ecc", "--force") })
}

// rate returns the renewals in a minute of a run that renews all certificates of a side. The processor time of one goes to
// each.
func (b *issueBench) rate(each *[]float64, cpu func() (float64, error), renew func() error) (float64, error) {
	before, err := cpu()
	if err != nil {
		return 0, err
	}
	took, err := timed(renew)
	if err != nil {
		return 0, err
	}
	after, err := cpu()
	*each = append(*each, (after-before)/float64(b.certs))
	return float64(b.certs) / took * 60_000, err
}

// parallel runs acme.sh once for each certificate by hand, with all workers.
func (b *issueBench) parallel(ctx context.Context, args ...string) error {
	errs := make([]error, issueWorkers)
	var wait sync.WaitGroup
	for worker := range issueWorkers {
		wait.Go(func() {
			for n := worker; n < b.certs && errs[worker] == nil; n += issueWorkers {
				errs[worker] = b.hand(ctx, worker, fmt.Sprintf("hand-%d.test", n), args...)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (b *issueBench) hand(ctx context.Context, worker int, name string, args ...string) error {
	home := filepath.Join(b.dir, fmt.Sprintf("home-%d", worker))
	args = append([]string{b.script, "--home", home, "--server", b.directory, "--ca-bundle", b.bundle(), "-d", name}, args...)
	cmd := exec.CommandContext(ctx, "/bin/sh", args...) //nolint:gosec // G204: the peer
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + home}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run acme.sh by hand: %w: %s", err, out)
	}
	return nil
}

// childrenCPU is the processor time of this process's children that ended, in ms.
func childrenCPU() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6, nil
}
