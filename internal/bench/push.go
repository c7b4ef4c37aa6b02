// This file pushes a thousand changed branches of many to a stock Git host, beside git itself.

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi" //nolint:gosec // G504: git's HTTP server is a CGI program; it listens on loopback for the time of a comparison
	"os"
	"os/exec" //nolint:depguard // the peer that is measured
	"path/filepath"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// pushBench is a store and two empty repositories on a stock host, one for us and one for git.
type pushBench struct {
	fleet   *fleet
	store   *gitstore.Store
	main    string
	dir     string
	url     string
	changed int
}

// benchPush measures the push of changed branches, the look at what the remote holds included.
func benchPush(ctx context.Context, r *Report) (err error) {
	dir, err := os.MkdirTemp("", "certferry-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &pushBench{dir: dir, changed: r.Size(1000)}
	stop, err := b.serve(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if b.fleet, err = newFleet(r.Size(10_000)); err != nil {
		return err
	}
	if b.store, err = b.fleet.open(filepath.Join(dir, "hub.git")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.store.Close()) }()
	h, _ := b.store.Repo().Ref(manifest.MainBranch)
	b.main = h.String()
	if err := b.renew(ctx, len(b.fleet.servers)); err != nil {
		return err
	}
	if err := errors.Join(b.push(ctx, "ours.git"), b.push(ctx, "peer.git")); err != nil {
		return err
	}
	return r.Compare(ctx, Comparison{
		Name: fmt.Sprintf("push.http-%d-of-%d", b.changed, len(b.fleet.servers)), Unit: "ms", Rounds: 3,
		Ours: b.ours, Peer: "git(wildcard)", PeerRun: b.peer, Goal: Goal{Ratio: 0.5},
	})
}

// serve starts git's own HTTP server with two repositories that take pushes.
func (b *pushBench) serve(ctx context.Context) (stop func(), err error) {
	for _, name := range []string{"ours.git", "peer.git"} {
		if err := b.git(ctx, "", "init", "-q", "--bare", filepath.Join(b.dir, name)); err != nil {
			return nil, err
		}
		if err := b.git(ctx, name, "config", "http.receivepack", "true"); err != nil {
			return nil, err
		}
		if err := b.git(ctx, name, "config", "gc.auto", "0"); err != nil {
			return nil, err
		}
	}
	where, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("find git: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.url = "http://" + listener.Addr().String() + "/"
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		(&cgi.Handler{
			Path: filepath.Join(strings.TrimSpace(string(where)), "git-http-backend"), Root: "/",
			Env: append(quiet, "GIT_PROJECT_ROOT="+b.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL="+req.Header.Get("Git-Protocol")),
		}).ServeHTTP(w, req)
	})}
	go func() { _ = server.Serve(listener) }()
	return func() { _ = server.Close() }, nil
}

// quiet keeps git away from the machine's configuration.
var quiet = []string{"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0"}

func (b *pushBench) git(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...) //nolint:gosec // G204: constants and a folder of this run
	cmd.Dir = filepath.Join(b.dir, dir)
	cmd.Env = append(os.Environ(), quiet...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// renew gives the first n servers a new issue.
func (b *pushBench) renew(ctx context.Context, n int) error {
	renewed, err := b.fleet.renew(certificate)
	if err != nil {
		return err
	}
	_, err = b.store.Publish(ctx, b.main, b.fleet.wish(renewed)[:n])
	return err
}

// push is what the hub does for a remote.
func (b *pushBench) push(ctx context.Context, name string) error {
	limits := gitrepo.PushLimits
	limits.Timeout = 5 * time.Minute
	remote := &gitrepo.Remote{URL: b.url + name, Limits: limits}
	there, err := remote.List(ctx, "refs/heads/")
	if err != nil {
		return err
	}
	var updates []gitrepo.RefUpdate
	for ref, h := range b.store.Repo().Refs() {
		if there[ref] != h {
			updates = append(updates, gitrepo.RefUpdate{Ref: ref, Old: there[ref], New: h})
		}
	}
	results, err := remote.Push(ctx, b.store.Repo(), updates, true)
	for _, result := range results {
		err = errors.Join(err, result.Err)
	}
	return err
}

func (b *pushBench) ours(ctx context.Context) (float64, error) {
	if err := b.renew(ctx, b.changed); err != nil {
		return 0, err
	}
	ms, err := timed(func() error { return b.push(ctx, "ours.git") })
	return ms, errors.Join(err, b.push(ctx, "peer.git")) // both start from the same
}

func (b *pushBench) peer(ctx context.Context) (float64, error) {
	if err := b.renew(ctx, b.changed); err != nil {
		return 0, err
	}
	ms, err := timed(func() error {
		// Without the buffer git sends in chunks, which a CGI server does not take; deltas of sealed files cost and
		// save nothing.
		return b.git(ctx, "hub.git", "-c", "http.postBuffer=1073741824", "-c", "pack.window=0", "push", "-q", "--atomic", b.url+"peer.git", "refs/heads/*:refs/heads/*")
	})
	return ms, errors.Join(err, b.push(ctx, "ours.git"))
}
