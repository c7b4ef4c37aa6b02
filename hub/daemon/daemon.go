// Package daemon wires the hub together: configuration, the making of a new hub, and the run of API, Git server and
// reconcile loop until told to stop. It is the only place that chooses drivers.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certferry/certferry/console"
	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitserve"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/internal/auth"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/httpapi"
	"github.com/certferry/certferry/hub/internal/intent"
	"github.com/certferry/certferry/hub/internal/monitor"
	"github.com/certferry/certferry/hub/internal/reconcile"
)

// committerName stands on every commit as its committer.
const committerName = "Certferry hub"

// Options are what New needs beside the configuration.
type Options struct {
	// Version of the program, for people.
	Version string
	Logger  *slog.Logger
	// Notices is where Run tells whoever started the hub its address and, once, the setup code.
	Notices io.Writer
	Now     func() time.Time
}

// Hub is an open hub.
type Hub struct {
	cfg        Config
	opt        Options
	publicURL  string
	keys       *keys
	listener   net.Listener
	db         *database.DB
	store      *gitstore.Store
	auth       *auth.Auth
	reconciler *reconcile.Reconciler
	handler    http.Handler
	mirror     *remotes
	monitor    *monitor.Monitor
	bell       httpapi.Bell

	closers []func() error
}

// New opens the hub that cfg describes. Run or Close ends it.
func New(ctx context.Context, cfg Config, opt Options) (*Hub, error) {
	if opt.Logger == nil || opt.Notices == nil || opt.Now == nil {
		return nil, errors.New("open hub: logger, notices or clock is missing")
	}
	if err := cfg.Complete(); err != nil {
		return nil, fmt.Errorf("check configuration: %w", err)
	}
	h := &Hub{cfg: cfg, opt: opt}
	if err := h.open(ctx); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *Hub) open(ctx context.Context) error {
	p := h.cfg.paths()
	if err := checkInitialised(p); err != nil {
		return err
	}
	held, err := takeLock(p)
	if err != nil {
		return err
	}
	h.closers = append(h.closers, held.Close)
	if err = finishInstall(&h.cfg); err != nil {
		return err
	}
	if h.keys, err = loadKeys(&h.cfg, h.opt.Now()); err != nil {
		return err
	}
	if h.listener, err = listen(ctx, &h.cfg); err != nil {
		return err
	}
	h.closers = append(h.closers, h.listener.Close)
	h.publicURL = takePort(h.cfg.PublicURL, h.listener)
	if h.db, err = database.Open(ctx, p.database(), h.opt.Now); err != nil {
		return err
	}
	h.closers = append(h.closers, h.db.Close)
	if h.store, err = openStore(&h.cfg, h.keys, h.opt.Now, h.opt.Logger); err != nil {
		return err
	}
	h.closers = append(h.closers, h.store.Close)
	return h.wire()
}

// openStore opens the repository with the hub's keys.
func openStore(cfg *Config, k *keys, now func() time.Time, log *slog.Logger) (*gitstore.Store, error) {
	return gitstore.Open(gitstore.Config{
		Dir: cfg.paths().repo(), RepoID: k.keyring.RepoID, Hub: k.signing, Escrow: k.escrow,
		Keyring: k.keyringRaw, KeyringSig: k.keyringSig, Retired: k.retired, RetiredEscrow: k.retiredEscrow,
		Committer: gitrepo.Person{Name: committerName, Email: "hub@" + cfg.EmailDomain}, Now: now, Logger: log,
	})
}

// wire makes the services and joins them.
func (h *Hub) wire() error {
	tokenKey, err := readTokenKey(&h.cfg)
	if err != nil {
		return err
	}
	if h.auth, err = auth.New(auth.Config{Store: h.db, SigningKey: tokenKey, Now: h.opt.Now}); err != nil {
		return err
	}
	if verify := h.cfg.verifyACME(); verify != nil {
		if err := verify(); err != nil {
			h.opt.Logger.Error("acme.sh is not as it was published: orders fail until it is: run certferry-hub acme install", slog.Any("error", err))
		}
	}
	drivers := newIssuers(&h.cfg, h.opt.Now, h.opt.Logger)
	drivers.publicURL = h.publicURL
	secrets := h.newVault(drivers)
	drivers.credentials = func(name string) (map[string]string, error) { return secrets.Values(context.Background(), name) }
	checker, err := h.newPreflight(drivers)
	if err != nil {
		return err
	}
	h.reconciler, err = reconcile.New(reconcile.Config{
		Ring:      h.bell.Ring,
		Preflight: h.preflightOrders(checker),
		Store:     h.store, Repo: h.store.Repo(), Data: h.db,
		Issuer:  drivers.driver,
		Staging: drivers.staging, Ledger: h.db, Limits: limitsOf, Leftovers: drivers.leftovers, IssuerWorkers: h.cfg.IssuerWorkers,
		Credentials: drivers.credentials, KeyringVersion: h.keys.keyring.Version, Domain: h.cfg.EmailDomain,
		Alerts: h.db, Review: h.cfg.Review, Waves: h.cfg.waves(), Soak: h.cfg.RolloutSoak, WaveTimeout: h.cfg.RolloutWaveTimeout,
		OfflineAfter: httpapi.MissedHeartbeats * h.cfg.HeartbeatInterval,
		Workers:      h.cfg.Workers, Interval: h.cfg.ReconcileInterval, Now: h.opt.Now, Logger: h.opt.Logger,
	})
	if err != nil {
		return err
	}
	wishes, err := intent.New(intent.Config{
		Store: h.store, Files: h.store.Repo(), Jobs: h.db, Audit: h.db, Domain: h.cfg.EmailDomain,
		Receiver: h.store, Alerts: h.db, Proposals: h.store, Review: h.cfg.Review, SignedRemotes: !h.cfg.AllowUnsignedIntent, Signers: operatorKeys(h.cfg.paths().operators()),
		Due: h.reconciler.Due, Waves: h.cfg.waves(),
		CheckIssuer: func(i *manifest.Issuer) error { _, err := drivers.driver(i); return err },
		Issuer:      drivers.driver,
		Changed:     h.reconciler.Trigger, Now: h.opt.Now,
	})
	if err != nil {
		return err
	}
	if h.mirror, err = newMirror(&h.cfg, h.store.Repo(), wishes, h.db, h.opt.Now, h.opt.Logger); err != nil {
		return err
	}
	h.monitor = monitor.New(monitor.Config{
		Store: h.store, Watches: h.db, Alerts: h.db, Endpoints: h.db, Probe: monitor.Dial, Now: h.opt.Now, Random: rand.Float64, Logger: h.opt.Logger,
	})
	pages, err := console.FS()
	if err != nil {
		return err
	}
	h.handler, err = httpapi.New(httpapi.Config{
		Data: h.db, Auth: h.auth, Intent: wishes, Fleet: h.store, Commits: h.store, Rollouts: h.reconciler, Proposals: h.store, Orders: h.reconciler, Credentials: secrets, Authorities: authorities{drivers, h.store}, IssuerIntent: wishes, CAs: accounts{drivers}, RenewAt: h.reconciler.RenewAt, Changed: h.reconciler.Trigger,
		Preflight: preflights{checker, wishes},
		Remotes:   h.mirror, Freezes: monitor.NewFreezes(h.db, h.opt.Now), Finds: h.monitor, Bell: &h.bell,
		Ready: h.db.Ping, Git: gitserve.New(gitserve.Config{
			Repo: h.store.Repo(), Access: gitAccess{h.auth, h.opt.Logger}, Receiver: pushes{wishes}, Logger: h.opt.Logger,
		}), Console: pages,
		PublicURL: h.publicURL, RepoID: h.keys.keyring.RepoID, RootKey: string(h.keys.rootArmor),
		RootFingerprint: h.keys.root.Fingerprint(), Version: h.opt.Version, HeartbeatInterval: h.cfg.HeartbeatInterval,
		Now: h.opt.Now, Logger: h.opt.Logger,
	})
	return err
}

// URL is the hub's address as agents and people reach it.
func (h *Hub) URL() string { return h.publicURL }

// Run serves until ctx is done or something fails for good, then closes the hub.
func (h *Hub) Run(ctx context.Context) error {
	return errors.Join(h.run(ctx), h.Close())
}

func (h *Hub) run(ctx context.Context) error {
	if err := h.welcome(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.reconciler.Run(ctx) })
	group.Go(func() error { return h.keepStore(ctx) })
	group.Go(func() error { return h.mirror.Run(ctx) })
	group.Go(func() error { return h.monitor.Run(ctx) })
	group.Go(func() error { return h.keepRecords(ctx) })
	group.Go(func() error { return serve(ctx, h.listener, h.handler, h.bell.Close, h.opt.Logger) })
	err := group.Wait()
	h.opt.Logger.InfoContext(ctx, "hub stopped")
	return err
}

// welcome tells whoever started the hub where it is, and the setup code while there is no administrator. The code
// does not go to the log, which others may read.
func (h *Hub) welcome(ctx context.Context) error {
	log := h.opt.Logger
	code, needed, err := h.auth.EnsureSetupCode(ctx)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "hub started", "url", h.publicURL, "address", h.listener.Addr().String(), "version", h.opt.Version,
		"repo_id", h.keys.keyring.RepoID, "root_fingerprint", h.keys.root.Fingerprint())
	if _, err := os.Lstat(h.cfg.paths().rootKey()); !errors.Is(err, fs.ErrNotExist) {
		log.WarnContext(ctx, "the root key is still on this machine: move it to a safe place offline", "path", h.cfg.paths().rootKey())
	}
	_, _ = fmt.Fprintf(h.opt.Notices, "console: %s/\n", h.publicURL)
	if needed {
		_, _ = fmt.Fprintf(h.opt.Notices, "setup code: %s\n(it makes the first administrator, once, in the console; the next start prints a new one)\n", code)
	}
	return nil
}

// Close closes what New opened, the last first. It may be called again.
func (h *Hub) Close() error {
	var faults []error
	for _, closeOne := range slices.Backward(h.closers) {
		if err := closeOne(); err != nil && !errors.Is(err, net.ErrClosed) {
			faults = append(faults, err)
		}
	}
	h.closers = nil
	return errors.Join(faults...)
}
