// This file looks after the repository: by hand while the hub is stopped, and once a day while it runs.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/hub/internal/database"
)

const (
	// defaultStoreKeep is how long the history of servers is kept unless the configuration says otherwise.
	defaultStoreKeep = 90 * 24 * time.Hour
	// firstPrune is how long after its start a hub prunes the repository, pruneEvery how often from then on.
	firstPrune = 10 * time.Minute
	pruneEvery = 24 * time.Hour
	// worthPruning is the share of garbage at which a running hub writes packs again.
	worthPruning = 0.1
)

// StoreReport is what VerifyStore found.
type StoreReport struct {
	RepoID       string   `json:"repo_id" yaml:"repo_id"`
	MainCommit   string   `json:"main_commit" yaml:"main_commit"`
	References   int      `json:"references" yaml:"references"`
	Certificates int      `json:"certificates" yaml:"certificates"`
	Servers      int      `json:"servers" yaml:"servers"`
	Faults       []string `json:"faults" yaml:"faults"`
}

// VerifyStore checks, while the hub is stopped, that the repository is whole, that every bundle on main opens and
// that the audit history is unbroken. Faults are in the report; an error means that it could not look.
func VerifyStore(ctx context.Context, cfg Config, now func() time.Time) (report StoreReport, err error) {
	err = withStore(&cfg, now, func(store *gitstore.Store, k *keys) error {
		report.RepoID = k.keyring.RepoID
		return verifyStore(ctx, &cfg, now, store, &report)
	})
	return report, err
}

// withStore opens the repository of a hub that is stopped for fn.
func withStore(cfg *Config, now func() time.Time, fn func(*gitstore.Store, *keys) error) (err error) {
	if err := cfg.Complete(); err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	k, err := loadKeys(cfg, now())
	if err != nil {
		return err
	}
	held, err := takeLock(cfg.paths())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	store, err := openStore(cfg, k, now, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return fn(store, k)
}

func verifyStore(ctx context.Context, cfg *Config, now func() time.Time, store *gitstore.Store, report *StoreReport) error {
	if err := store.Repo().Verify(ctx); err != nil {
		report.Faults = append(report.Faults, err.Error())
	}
	snapshot, err := store.Snapshot()
	if err != nil {
		return err
	}
	report.MainCommit = snapshot.Commit
	report.References, report.Certificates, report.Servers = len(store.Repo().Refs()), len(snapshot.Certificates), len(snapshot.Servers)
	for _, f := range snapshot.Faults {
		report.Faults = append(report.Faults, f.Path+": "+f.Err.Error())
	}
	for name := range snapshot.Issued {
		if _, err := store.OpenIssued(ctx, snapshot.Commit, name); err != nil {
			report.Faults = append(report.Faults, err.Error())
		}
	}
	return verifyAudit(ctx, cfg, now, report)
}

func verifyAudit(ctx context.Context, cfg *Config, now func() time.Time, report *StoreReport) error {
	db, err := database.Open(ctx, cfg.paths().database(), now)
	if err != nil {
		return err
	}
	err = db.VerifyAudit(ctx)
	if errors.Is(err, database.ErrAuditBroken) {
		report.Faults = append(report.Faults, err.Error())
		err = nil
	}
	return errors.Join(err, db.Close())
}

// PruneReport is what PruneStore did. Sizes are in bytes.
type PruneReport struct {
	DryRun bool `json:"dry_run" yaml:"dry_run"`
	// Keep is the time for which history was kept.
	Keep string `json:"keep" yaml:"keep"`
	// Begun and Ended are the servers whose history starts anew, and the earlier histories that were let go; Held are
	// those that stay as long as a server is held at a commit in them.
	Begun int `json:"begun" yaml:"begun"`
	Ended int `json:"ended" yaml:"ended"`
	Held  int `json:"held" yaml:"held"`
	// GarbageObjects and GarbageBytes were dropped, in a dry run found, of Objects and Bytes.
	Objects        int   `json:"objects" yaml:"objects"`
	Bytes          int64 `json:"bytes" yaml:"bytes"`
	GarbageObjects int   `json:"garbage_objects" yaml:"garbage_objects"`
	GarbageBytes   int64 `json:"garbage_bytes" yaml:"garbage_bytes"`
}

// PruneStore bounds, while the hub is stopped, the history of servers and drops what nothing leads to any more.
func PruneStore(ctx context.Context, cfg Config, keep time.Duration, dryRun bool, now func() time.Time) (PruneReport, error) {
	report := PruneReport{DryRun: dryRun, Keep: keep.String()}
	err := withStore(&cfg, now, func(store *gitstore.Store, _ *keys) error {
		got, err := store.Prune(ctx, gitstore.PruneOptions{Keep: keep, DryRun: dryRun})
		report.Begun, report.Ended, report.Held = got.Begun, got.Ended, got.Held
		report.Objects, report.Bytes, report.GarbageObjects, report.GarbageBytes = got.Objects, got.Bytes, got.GarbageObjects, got.GarbageBytes
		return err
	})
	return report, err
}

// StoreStats is what the repository holds. Sizes are in bytes of packs.
type StoreStats struct {
	References     int          `json:"references" yaml:"references"`
	Packs          int          `json:"packs" yaml:"packs"`
	Objects        int          `json:"objects" yaml:"objects"`
	Bytes          int64        `json:"bytes" yaml:"bytes"`
	GarbageObjects int          `json:"garbage_objects" yaml:"garbage_objects"`
	GarbageBytes   int64        `json:"garbage_bytes" yaml:"garbage_bytes"`
	Groups         []GroupStats `json:"groups" yaml:"groups"`
	Largest        []LargeFile  `json:"largest" yaml:"largest"`
}

// GroupStats is what the references of one kind lead to, and no group before it does.
type GroupStats struct {
	Name       string `json:"name" yaml:"name"`
	References int    `json:"references" yaml:"references"`
	Commits    int    `json:"commits" yaml:"commits"`
	Objects    int    `json:"objects" yaml:"objects"`
	Bytes      int64  `json:"bytes" yaml:"bytes"`
}

// LargeFile is one of the largest files, and a commit that holds it.
type LargeFile struct {
	Ref    string `json:"ref" yaml:"ref"`
	Commit string `json:"commit" yaml:"commit"`
	Path   string `json:"path" yaml:"path"`
	Bytes  int64  `json:"bytes" yaml:"bytes"`
}

// CountStore counts, while the hub is stopped, what the repository holds.
func CountStore(ctx context.Context, cfg Config, now func() time.Time) (stats StoreStats, err error) {
	err = withStore(&cfg, now, func(store *gitstore.Store, _ *keys) error {
		got, err := store.Stats(ctx)
		stats = StoreStats{
			References: got.References, Packs: got.Packs, Objects: got.Objects, Bytes: got.Bytes,
			GarbageObjects: got.GarbageObjects, GarbageBytes: got.GarbageBytes, Groups: []GroupStats{}, Largest: []LargeFile{},
		}
		for _, g := range got.Groups {
			stats.Groups = append(stats.Groups, GroupStats(g))
		}
		for _, f := range got.Largest {
			stats.Largest = append(stats.Largest, LargeFile{Ref: f.Ref, Commit: f.Commit.String(), Path: f.Path, Bytes: f.Bytes})
		}
		return err
	})
	return stats, err
}

// keepStore prunes the repository once a day. A failure is logged: the next day is early enough.
func (h *Hub) keepStore(ctx context.Context) error {
	if h.cfg.StoreKeep == 0 {
		return nil
	}
	timer := time.NewTimer(firstPrune)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		h.pruneStore(ctx)
		timer.Reset(pruneEvery)
	}
}

func (h *Hub) pruneStore(ctx context.Context) {
	report, err := h.store.Prune(ctx, gitstore.PruneOptions{Keep: h.cfg.StoreKeep, MinShare: worthPruning})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		h.opt.Logger.ErrorContext(ctx, "repository not pruned", "error", err)
	case report.Begun+report.Ended+report.Packs > 0:
		h.opt.Logger.InfoContext(ctx, "repository pruned", "histories_begun", report.Begun, "histories_ended", report.Ended,
			"objects", report.Objects, "garbage_objects", report.GarbageObjects, "packs_replaced", report.Packs)
	}
}
