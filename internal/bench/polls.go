// This file compares what agents do all day: asking whether there is news, and fetching it.

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec" //nolint:depguard // the server is a process of its own
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// pollers is how many agents ask at once.
const pollers = 4

// pollBench asks a running server.
type pollBench struct {
	fleet *fleet
	dir   string
	// plain and secure are the server's addresses for HTTP and HTTPS.
	plain, secure string
	http          *http.Client
	// etags of the servers' last polls, by the number of the server.
	etags []string
	// agent is a server's own client, etag of its last poll, clone what git keeps for it.
	agent gitrepo.Remote
	etag  string
	clone string
	// next is the server that asks next: fetches go round, so that nothing is served from what the last one left.
	next atomic.Int64
}

// benchPolls measures polls without news and fetches of news, each as requests per second of processor time on the
// side of the server, and a poll's bytes and processor time on the side of the agent. It measures the handler gitserve,
// not the hub around it.
func benchPolls(ctx context.Context, r *Report) (err error) {
	dir, err := os.MkdirTemp("", "certferry-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &pollBench{dir: dir, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: pollers}}}
	defer b.http.CloseIdleConnections()
	if err := b.fill(ctx, r.Size(10_000)); err != nil {
		return err
	}
	stop, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := errors.Join(b.learn(ctx), b.enrol(ctx)); err != nil {
		return err
	}
	r.note("polls: ours is gitserve with the credentials in memory, git asks for none; the whole hub adds database, log and middleware")
	for _, c := range b.comparisons(r) {
		if err := r.Compare(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (b *pollBench) comparisons(r *Report) []Comparison {
	n := len(b.etags)
	name := func(what string) string { return fmt.Sprintf("polls.%s-%d", what, n) }
	perSecond := func(times int, ask func(ctx context.Context, server int) error) Measure {
		return func(ctx context.Context) (float64, error) { return b.perCPUSecond(ctx, r.Size(times), ask) }
	}
	const peer = "git-fetch(v2,hidden-refs)"
	quietOurs := perSecond(20_000, b.quiet)
	return []Comparison{
		{
			Name: name("quiet"), Unit: "/cpu-s", More: true, Ours: quietOurs,
			Peer: "git-http-backend(v0,hidden-refs)", PeerRun: perSecond(150, b.quietV0), Goal: Goal{Ratio: 100},
		},
		{
			Name: name("quiet-v2"), Unit: "/cpu-s", More: true, Ours: quietOurs,
			Peer: "git-http-backend(v2,one-prefix,no-greeting)", PeerRun: perSecond(150, b.quietV2), Goal: Goal{Ratio: 50},
		},
		{
			Name: name("changed"), Unit: "/cpu-s", More: true, Ours: perSecond(1500, b.changed(oursPath)),
			Peer: "git-http-backend(v0,hidden-refs)", PeerRun: perSecond(50, b.changed(peerPath+"/"+repoName)), Goal: Goal{Ratio: 20},
		},
		{
			Name: name("quiet-bytes"), Unit: "B", Ours: b.agentBytes(r.Size(500), b.agentPoll), Peer: peer, PeerRun: b.agentBytes(r.Size(20), b.gitPoll),
			Goal: Goal{Limit: 300},
		},
		{
			Name: name("quiet-agent-cpu"), Unit: "ms", Ours: b.agentCPU(r.Size(500), syscall.RUSAGE_SELF, b.agentPoll), Peer: peer,
			PeerRun: b.agentCPU(r.Size(20), syscall.RUSAGE_CHILDREN, b.gitPoll), Goal: Goal{Limit: 1},
		},
	}
}

// fill makes the repository of a fleet, and the certificate that it is served with.
func (b *pollBench) fill(ctx context.Context, servers int) error {
	var err error
	if b.fleet, err = newFleet(servers); err != nil {
		return err
	}
	b.etags = make([]string, servers)
	site, err := b.fleet.renew("localhost")
	if err != nil {
		return err
	}
	key, err := site.KeyPEM()
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(b.dir, certName), site.FullChainPEM(), 0o600),
		os.WriteFile(filepath.Join(b.dir, keyName), key, 0o600)); err != nil {
		return err
	}
	store, err := b.fleet.open(filepath.Join(b.dir, repoName))
	if err != nil {
		return err
	}
	main, _ := store.Repo().Ref(manifest.MainBranch)
	for range 3 { // renewals, so that there is history
		renewed, err := b.fleet.renew(certificate)
		if err == nil {
			_, err = store.Publish(ctx, main.String(), b.fleet.wish(renewed))
		}
		if err != nil {
			return errors.Join(err, store.Close())
		}
	}
	return store.Close()
}

// start starts the server; stop ends it.
func (b *pollBench) start(ctx context.Context) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, serveCommand, b.dir) //nolint:gosec // G204: this program itself
	var faults bytes.Buffer
	cmd.Stderr = &faults
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error { return errors.Join(stdin.Close(), cmd.Wait()) }
	lines := bufio.NewScanner(stdout)
	for _, into := range []*string{&b.plain, &b.secure} {
		if !lines.Scan() {
			return nil, errors.Join(fmt.Errorf("start the server: %s", faults.String()), stop())
		}
		*into = lines.Text()
	}
	b.plain = "http://" + b.plain
	_, port, _ := strings.Cut(b.secure, ":")
	b.secure = "https://localhost:" + port
	return stop, nil
}

// reply is an answer as far as the comparisons look at it.
type reply struct {
	status int
	etag   string
	body   []byte
}

// ask sends a request as the server with a number.
func (b *pollBench) ask(ctx context.Context, server int, method, path string, header http.Header, body string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.plain+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	maps.Copy(req.Header, header)
	name := b.fleet.servers[server].Server
	req.SetBasicAuth(name, secretOf(name))
	answer, err := b.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	data, err := io.ReadAll(answer.Body)
	return reply{answer.StatusCode, answer.Header.Get("ETag"), data}, errors.Join(err, answer.Body.Close())
}

// learn polls once for each server and keeps the ETags.
func (b *pollBench) learn(ctx context.Context) error {
	for i := range b.etags {
		answer, err := b.ask(ctx, i, http.MethodGet, oursPath+infoRefs, nil, "")
		if err != nil {
			return err
		}
		if b.etags[i] = answer.etag; answer.etag == "" {
			return fmt.Errorf("poll: status %d without an ETag", answer.status)
		}
	}
	return nil
}

const infoRefs = "/info/refs?service=git-upload-pack"

// perCPUSecond lets pollers call ask times over, and returns how many of them a second of processor time serves.
func (b *pollBench) perCPUSecond(ctx context.Context, times int, ask func(ctx context.Context, server int) error) (float64, error) {
	before, _, err := b.usage(ctx)
	if err != nil {
		return 0, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	var left atomic.Int64
	left.Store(int64(times))
	for range pollers {
		group.Go(func() error {
			for left.Add(-1) >= 0 {
				if err := ask(groupCtx, int(b.next.Add(1))%len(b.etags)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	after, _, err := b.usage(ctx)
	return float64(times) / max(after-before, time.Microsecond).Seconds(), err
}

// usage is what the server took of the processors so far, and how many bytes it received and sent over HTTPS.
func (b *pollBench) usage(ctx context.Context) (cpu time.Duration, transferred int64, err error) {
	answer, err := b.ask(ctx, 0, http.MethodGet, usagePath, nil, "")
	if err != nil {
		return 0, 0, err
	}
	var us int64
	_, err = fmt.Sscan(string(answer.body), &us, &transferred)
	return time.Duration(us) * time.Microsecond, transferred, err
}

// quiet is a poll without news at our server.
func (b *pollBench) quiet(ctx context.Context, server int) error {
	answer, err := b.ask(ctx, server, http.MethodGet, oursPath+infoRefs, http.Header{"If-None-Match": {b.etags[server]}}, "")
	if err == nil && answer.status != http.StatusNotModified {
		err = fmt.Errorf("quiet poll: status %d", answer.status)
	}
	return err
}

// quietV0 is the same request at git's server, which knows no other answer than the references.
func (b *pollBench) quietV0(ctx context.Context, server int) error {
	_, err := b.tip(ctx, server, peerPath+"/"+repoName)
	return err
}

// quietV2 asks git's server for one reference by protocol v2. A client that remembers what the server is able to do
// can leave out the request before; git itself does not.
func (b *pollBench) quietV2(ctx context.Context, server int) error {
	ref := manifest.ServerBranch(b.fleet.servers[server].Server)
	body := pktLine("command=ls-refs\n") + "0001" + pktLine("ref-prefix "+ref+"\n") + "0000"
	answer, err := b.ask(ctx, server, http.MethodPost, peerPath+"/"+repoName+"/git-upload-pack", http.Header{
		"Git-Protocol": {"version=2"}, "Content-Type": {"application/x-git-upload-pack-request"},
	}, body)
	if err == nil && !bytes.Contains(answer.body, []byte(ref)) {
		err = fmt.Errorf("poll by v2: got %q", answer.body)
	}
	return err
}

// tip polls and returns what the server's branch is at.
func (b *pollBench) tip(ctx context.Context, server int, at string) (string, error) {
	ref := manifest.ServerBranch(b.fleet.servers[server].Server)
	answer, err := b.ask(ctx, server, http.MethodGet, at+infoRefs, nil, "")
	if err != nil {
		return "", err
	}
	data := answer.body
	i := bytes.Index(data, []byte(" "+ref))
	if i < 40 {
		return "", fmt.Errorf("poll: got %q", data[:min(len(data), 200)])
	}
	return string(data[i-40 : i]), nil
}

// changed is a poll with news, and the fetch of the newest state.
func (b *pollBench) changed(at string) func(ctx context.Context, server int) error {
	return func(ctx context.Context, server int) error {
		tip, err := b.tip(ctx, server, at)
		if err != nil {
			return err
		}
		body := pktLine("want "+tip+" multi_ack_detailed no-done side-band-64k ofs-delta no-progress shallow agent=bench\n") +
			pktLine("deepen 1\n") + "0000" + pktLine("done\n")
		answer, err := b.ask(ctx, server, http.MethodPost, at+"/git-upload-pack", http.Header{"Content-Type": {"application/x-git-upload-pack-request"}}, body)
		if err == nil && !bytes.Contains(answer.body, []byte("PACK")) {
			err = fmt.Errorf("fetch: got %q", answer.body[:min(len(answer.body), 200)])
		}
		return err
	}
}

func pktLine(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }
