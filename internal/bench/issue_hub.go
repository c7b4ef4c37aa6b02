// This file is the hub of the renewals: a process of its own, so that its processor time is known with that of acme.sh and
// all that it runs, and a client that asks it as people do.

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
	"github.com/certferry/certferry/hub/daemon"
	"github.com/certferry/certferry/issuer/acmesh/distribution"
)

const (
	// serveHub makes this program a hub, in the folder, with the acme.sh and for the CA that its arguments name.
	serveHub = "serve-hub"
	// hubPatience is how long the hub may take for all certificates.
	hubPatience = time.Hour
	// ticksPerSecond is the unit of /proc/PID/stat, USER_HZ on all machines that Go runs on.
	ticksPerSecond = 100
)

// hubProcess is a hub with an administrator logged in.
type hubProcess struct {
	pid    int
	stop   func()
	client *client.Client
	// have are the serial numbers of the newest certificates by name.
	have map[string]string
}

// runHub serves a hub until stdin ends. It says its process id and address, and the setup code.
func runHub(ctx context.Context, words []string, stdin io.Reader, stdout io.Writer) error {
	if len(words) != 3 {
		return errors.New("run hub: want a folder, acme.sh and a directory")
	}
	dir, script, directory := words[0], words[1], words[2]
	cfg := daemon.Config{
		DataDir: filepath.Join(dir, "hub"), Listen: "127.0.0.1:0", ACMEScript: script, ACMEDirectories: []string{directory},
		ACMEUnpinned:  distribution.Published().Verify(filepath.Dir(script)) != nil,
		ACMECABundle:  filepath.Join(dir, "pebble-ca.pem"),
		ACMEPreflight: "off", Workers: issueWorkers, IssuerWorkers: issueWorkers,
	}
	if os.Geteuid() == 0 {
		cfg.ACMEUser = "root"
	}
	if _, err := daemon.Init(ctx, cfg, clock); err != nil {
		return err
	}
	hub, err := daemon.New(ctx, cfg, daemon.Options{Version: "bench", Logger: slog.New(slog.DiscardHandler), Notices: stdout, Now: clock})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "%d %s\n", os.Getpid(), hub.URL()); err != nil {
		return errors.Join(err, hub.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	return hub.Run(ctx)
}

// startHub starts a hub and makes its administrator.
func startHub(ctx context.Context, b *issueBench) (_ *hubProcess, err error) {
	// acme.sh by hand trusts the CA alone. So does the hub: the roots of a system cost curl some ms in each request.
	said, stop, err := serveSelf(ctx, []string{"SSL_CERT_FILE=" + b.bundle()}, serveHub, b.dir, b.script, b.directory)
	if err != nil {
		return nil, fmt.Errorf("start the hub: %w", err)
	}
	h := &hubProcess{stop: stop, have: map[string]string{}}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	var url string
	if _, err = fmt.Fscanf(said, "%d %s\n", &h.pid, &url); err != nil {
		return nil, fmt.Errorf("start the hub: %w", err)
	}
	code, err := setupCode(said)
	if err != nil {
		return nil, fmt.Errorf("start the hub: %w", err)
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()
	if h.client, err = client.New(client.Config{BaseURL: url, Session: &client.Session{}}); err != nil {
		return nil, err
	}
	_, err = h.client.Setup(ctx, apiv1.SetupRequest{Code: code, Name: "bench", Password: "a bench of wood and iron"})
	return h, err
}

func setupCode(said *bufio.Reader) (string, error) {
	for {
		line, err := said.ReadString('\n')
		if err != nil {
			return "", err
		}
		if code, ok := strings.CutPrefix(line, "setup code: "); ok {
			return strings.TrimSpace(code), nil
		}
	}
}

// create wishes for all certificates, and waits until they are there.
func (h *hubProcess) create(ctx context.Context, b *issueBench) error {
	_, err := h.client.CreateIssuer(ctx, apiv1.CreateIssuerRequest{
		Name: "acme", IssuerSpec: apiv1.IssuerSpec{Type: "acmesh", Directory: b.directory, Email: "bench@example.com"},
	})
	if err != nil {
		return err
	}
	for n := range b.certs {
		name := fmt.Sprintf("ours-%d.test", n)
		h.have[name] = ""
		_, err := h.client.CreateCertificate(ctx, apiv1.CertificateSpec{
			Name: name, Names: []string{name}, Issuer: "acme",
			Challenge: &apiv1.Challenge{Type: "http-01", Method: webroot, Webroot: filepath.Join(b.dir, webroot)},
		})
		if err != nil {
			return err
		}
	}
	return h.await(ctx)
}

// renewAll renews all certificates at once, and waits until they are there.
func (h *hubProcess) renewAll(ctx context.Context) error {
	if _, err := h.client.RenewAll(ctx, apiv1.RenewAllRequest{Issuer: "acme", NewKey: true, Reason: "bench"}); err != nil {
		return err
	}
	return h.await(ctx)
}

// await waits until each certificate has another serial number than before.
func (h *hubProcess) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hubPatience)
	defer cancel()
	tick := time.NewTicker(time.Second) // each look costs the hub some of what is measured
	defer tick.Stop()
	for {
		got, err := h.renewed(ctx)
		if err != nil {
			return err
		}
		if len(got) == len(h.have) {
			h.have = got
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the hub's certificates: %d of %d: %w", len(got), len(h.have), ctx.Err())
		case <-tick.C:
		}
	}
}

// renewed are the serial numbers of certificates that have another one than before, by name.
func (h *hubProcess) renewed(ctx context.Context) (map[string]string, error) {
	got := map[string]string{}
	page := client.Page{Limit: 100}
	for {
		list, err := h.client.Certificates(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, c := range list.Items {
			if c.Job != nil && c.Job.State == apiv1.JobFailed {
				return nil, fmt.Errorf("renew %s: %s", c.Name, c.Job.Error)
			}
			if c.Issued != nil && c.Issued.Serial != h.have[c.Name] {
				got[c.Name] = c.Issued.Serial
			}
		}
		if page.After = list.Next; page.After == "" {
			return got, nil
		}
	}
}

// cpu is the processor time of the hub and of all that it ran and that ended, in ms.
func (h *hubProcess) cpu() (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.pid))
	if err != nil {
		return 0, fmt.Errorf("read the hub's processor time: %w", err)
	}
	_, behind, _ := strings.Cut(string(data), ") ") // the name of the program may hold anything
	fields := strings.Fields(behind)
	if len(fields) < 15 {
		return 0, errors.New("read the hub's processor time: /proc is not as proc(5) says")
	}
	ticks := 0
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("read the hub's processor time: %w", err)
		}
		ticks += n
	}
	return float64(ticks) * 1000 / ticksPerSecond, nil
}
