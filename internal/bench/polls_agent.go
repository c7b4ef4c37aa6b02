// This file is the agent's side of the poll comparisons: what a quiet poll takes of a server's processor and of the
// network, beside a stock git that keeps a clone. Both speak HTTPS; the agent keeps its connection between polls, as
// the hub lets it, and git makes one for each.

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec" //nolint:depguard // the peer that is measured
	"path/filepath"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// enrol makes the first server's client, and its clone for git.
func (b *pollBench) enrol(ctx context.Context) error {
	name := b.fleet.servers[0].Server
	roots := x509.NewCertPool()
	roots.AddCert(b.fleet.ca)
	b.agent = gitrepo.Remote{
		URL: b.secure + oursPath, Username: name, Password: secretOf(name), Limits: gitrepo.DefaultLimits,
		HTTP: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		}},
	}
	first, err := b.agent.Poll(ctx, manifest.ServerBranch(name), "")
	if err != nil {
		return err
	}
	b.etag = first.ETag
	b.clone = "clone"
	return b.gitHTTPS(ctx, "", "clone", "-q", "--depth", "1", "-b", "servers/"+name, b.secure+peerPath+"/"+repoName, b.clone)
}

// gitHTTPS runs git as the first server.
func (b *pollBench) gitHTTPS(ctx context.Context, dir string, args ...string) error {
	name := b.fleet.servers[0].Server
	basic := base64.StdEncoding.EncodeToString([]byte(name + ":" + secretOf(name)))
	cmd := exec.CommandContext(ctx, "git", args...) //nolint:gosec // G204: constants and a folder of this run
	cmd.Dir = filepath.Join(b.dir, dir)
	cmd.Env = append(os.Environ(), quiet...)
	cmd.Env = append(cmd.Env, "GIT_SSL_CAINFO="+filepath.Join(b.dir, certName), "no_proxy=localhost",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: Basic "+basic)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return nil
}

func (b *pollBench) agentPoll(ctx context.Context) error {
	tip, err := b.agent.Poll(ctx, manifest.ServerBranch(b.fleet.servers[0].Server), b.etag)
	if err == nil && !tip.NotModified {
		err = errors.New("quiet poll: there is news")
	}
	return err
}

func (b *pollBench) gitPoll(ctx context.Context) error {
	return b.gitHTTPS(ctx, b.clone, "fetch", "-q", "--depth", "1", "origin", "servers/"+b.fleet.servers[0].Server)
}

// agentCPU returns the milliseconds of processor time that a poll takes.
func (b *pollBench) agentCPU(times, who int, poll func(context.Context) error) Measure {
	return func(ctx context.Context) (float64, error) {
		before, err := cpuTime(who)
		if err != nil {
			return 0, err
		}
		for range times {
			if err := poll(ctx); err != nil {
				return 0, err
			}
		}
		after, err := cpuTime(who)
		return float64(max(after-before, time.Microsecond)) / float64(time.Millisecond) / float64(times), err
	}
}

// agentBytes returns the bytes of TCP, TLS included, that a poll takes in both directions.
func (b *pollBench) agentBytes(times int, poll func(context.Context) error) Measure {
	return func(ctx context.Context) (float64, error) {
		_, before, err := b.usage(ctx)
		if err != nil {
			return 0, err
		}
		for range times {
			if err := poll(ctx); err != nil {
				return 0, fmt.Errorf("count bytes: %w", err)
			}
		}
		_, after, err := b.usage(ctx)
		return float64(after-before) / float64(times), err
	}
}
