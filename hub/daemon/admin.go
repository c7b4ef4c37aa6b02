package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
	"github.com/certferry/certferry/hub/internal/database"
)

// localActor is the actor of what somebody with access to the hub's machine did there.
var localActor = hub.Principal{Kind: hub.Person, Name: "local", Role: apiv1.RoleAdmin}

// Admin changes accounts on the hub's own machine while the hub is stopped: the way back in when nobody can log in.
type Admin struct {
	db   *database.DB
	auth *auth.Auth
	held *lock
}

// OpenAdmin opens the accounts. It answers ErrRunning while a hub runs.
func OpenAdmin(ctx context.Context, cfg Config, now func() time.Time) (*Admin, error) {
	if err := cfg.Complete(); err != nil {
		return nil, fmt.Errorf("check configuration: %w", err)
	}
	p := cfg.paths()
	if err := checkInitialised(p); err != nil {
		return nil, err
	}
	held, err := takeLock(p)
	if err != nil {
		return nil, err
	}
	a := &Admin{held: held}
	if err := a.open(ctx, &cfg, now); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Admin) open(ctx context.Context, cfg *Config, now func() time.Time) error {
	tokenKey, err := readTokenKey(cfg.JWTKey)
	if err != nil {
		return err
	}
	if a.db, err = database.Open(ctx, cfg.paths().database(), now); err != nil {
		return err
	}
	a.auth, err = auth.New(auth.Config{Store: a.db, SigningKey: tokenKey, Now: now})
	return err
}

// Close closes the accounts.
func (a *Admin) Close() error {
	var err error
	if a.db != nil {
		err = a.db.Close()
	}
	return errors.Join(err, a.held.Close())
}

// AddUser makes an account.
func (a *Admin) AddUser(ctx context.Context, name, password string, role apiv1.Role) error {
	_, err := a.auth.CreateUser(ctx, localActor, name, password, role)
	return err
}

// SetPassword replaces an account's password and ends its sessions.
func (a *Admin) SetPassword(ctx context.Context, name, password string) error {
	err := a.auth.SetPassword(ctx, localActor, name, password)
	if errors.Is(err, hub.ErrNotFound) {
		return &hub.Error{Class: hub.ErrNotFound, Message: "there is no account of this name: certferry-hub user ls lists them"}
	}
	return err
}

// Users lists the accounts by name.
func (a *Admin) Users(ctx context.Context) ([]apiv1.User, error) {
	const page = 500
	all := []apiv1.User{}
	after := ""
	for {
		users, err := a.db.Users(ctx, after, page)
		if err != nil {
			return nil, err
		}
		for i := range users {
			u := &users[i]
			all = append(all, apiv1.User{Name: u.Name, Role: u.Role, Disabled: u.Disabled, CreatedAt: u.CreatedAt})
		}
		if len(users) < page {
			return all, nil
		}
		after = users[len(users)-1].Name
	}
}

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
	if err := cfg.Complete(); err != nil {
		return report, fmt.Errorf("check configuration: %w", err)
	}
	k, err := loadKeys(&cfg, now())
	if err != nil {
		return report, err
	}
	held, err := takeLock(cfg.paths())
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	report.RepoID = k.keyring.RepoID
	store, err := openStore(&cfg, k, now, nil)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Repo().Verify(ctx); err != nil {
		report.Faults = append(report.Faults, err.Error())
	}
	snapshot, err := store.Snapshot()
	if err != nil {
		return report, err
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
	return report, verifyAudit(ctx, &cfg, now, &report)
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
