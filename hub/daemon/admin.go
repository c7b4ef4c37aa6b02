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
	tokenKey, err := readTokenKey(cfg)
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
