// This file replaces the server's own key: a new one is made, offered to the hub under the signature of the present one,
// and takes its place with the first state that is sealed to it. Until then both open what comes, so that a kill at any
// step leaves an agent that works.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/agent/internal/state"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/internal/failpoint"
)

// Rotation is where the replacement of the server's key stands.
type Rotation struct {
	// Fingerprint is the new key's; a person compares it where State is pending.
	Fingerprint string `json:"fingerprint" yaml:"fingerprint"`
	// State is taken, or pending until a person approves the new key.
	State string `json:"state" yaml:"state"`
}

// identityKeys is the identity with its keys.
type identityKeys struct {
	id         state.Identity
	credential string
	present    *seal.PrivateKey
	// next and old may be nil.
	next, old *seal.PrivateKey
}

// loadKeys reads identity and keys, and finishes a replacement that a crash interrupted.
func loadKeys(dir *state.Dir) (*identityKeys, error) {
	for again := true; ; again = false {
		k, err := readKeys(dir)
		if err != nil || k.present.Fingerprint() == k.id.Fingerprint {
			return k, err
		}
		if k.next != nil && k.next.Fingerprint() == k.id.Fingerprint {
			if err := dir.FinishPromotion(); err != nil {
				return nil, err
			}
			k.old, k.present, k.next = k.present, k.next, nil
			return k, nil
		}
		if !again {
			return nil, errors.New("check agent key: the stored key is not the one that was enrolled; enrol again")
		}
		// Another process may have replaced the key between two of the files.
	}
}

func readKeys(dir *state.Dir) (*identityKeys, error) {
	k := &identityKeys{}
	id, armored, credential, err := dir.Identity()
	if err != nil {
		return nil, err
	}
	k.id, k.credential = id, credential
	if k.present, err = seal.ParsePrivateKey(armored); err != nil {
		return nil, fmt.Errorf("read agent key: %w", err)
	}
	beside, err := dir.Keys()
	if err != nil {
		return nil, err
	}
	// What cannot be read beside the present key is of no use, and no reason to stand still.
	k.next, k.old = parseOrNil(beside.Next), parseOrNil(beside.Old)
	return k, nil
}

func parseOrNil(armored []byte) *seal.PrivateKey {
	key, err := seal.ParsePrivateKey(armored)
	if err != nil {
		return nil
	}
	return key
}

// trust is whom this server believes, and who it is.
func (k *identityKeys) trust() (source.Trust, error) {
	root, err := seal.ParsePublicKey([]byte(k.id.RootKey))
	if err != nil {
		return source.Trust{}, fmt.Errorf("read root key: %w", err)
	}
	if root.Fingerprint() != k.id.RootFingerprint {
		return source.Trust{}, errors.New("check root key: the stored key is not the pinned one; enrol again")
	}
	return source.Trust{RepoID: k.id.RepoID, Server: k.id.Server, Root: root, Key: k.present}, nil
}

// takeKeys reads the keys anew: another process of this agent may have made or replaced one.
func (a *Agent) takeKeys() (*identityKeys, error) {
	k, err := loadKeys(a.dir)
	if err != nil {
		return nil, err
	}
	fingerprint := k.id.Fingerprint
	a.fingerprint.Store(&fingerprint)
	a.source.SetKeys(k.present, k.next, k.old)
	return k, nil
}

// RotateKey makes a new key, where none was made yet, and offers it to the hub. Its result is in force once the hub has
// sealed a state to the new key and this server has verified it.
func (a *Agent) RotateKey(ctx context.Context) (Rotation, error) {
	unlock, err := a.dir.Lock(ctx)
	if err != nil {
		return Rotation{}, err
	}
	defer unlock()
	k, err := a.takeKeys()
	if err != nil {
		return Rotation{}, err
	}
	if k.next == nil {
		if err := a.makeNextKey(); err != nil {
			return Rotation{}, err
		}
		if k, err = a.takeKeys(); err != nil {
			return Rotation{}, err
		}
	}
	failpoint.Hit("agent.rotate.made")
	public, err := k.next.Public().Armor()
	if err != nil {
		return Rotation{}, fmt.Errorf("encode agent key: %w", err)
	}
	signature, err := seal.Sign(manifest.ServerKeyDomain(a.id.RepoID, a.id.Server), public, k.present, a.env.Now())
	if err != nil {
		return Rotation{}, fmt.Errorf("sign next agent key: %w", err)
	}
	offered, err := a.hub.OfferKey(ctx, apiv1.OfferKeyRequest{PublicKey: string(public), Signature: string(signature)})
	if err != nil {
		return Rotation{}, fmt.Errorf("offer new key to the hub: %w", err)
	}
	failpoint.Hit("agent.rotate.offered")
	a.log.InfoContext(ctx, "new key offered", slog.String("fingerprint", offered.Fingerprint), slog.String("state", offered.State))
	return Rotation{Fingerprint: k.next.Fingerprint(), State: offered.State}, nil
}

func (a *Agent) makeNextKey() error {
	key, err := seal.Generate("certferry agent "+a.id.Server, a.env.Now())
	if err != nil {
		return fmt.Errorf("make agent key: %w", err)
	}
	armored, err := key.Armor()
	if err != nil {
		return fmt.Errorf("encode agent key: %w", err)
	}
	return a.dir.SaveNextKey(armored)
}

// rotate carries out what the hub asked for in its answer to a heartbeat.
func (a *Agent) rotate(ctx context.Context) {
	if _, err := a.RotateKey(ctx); err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "key not replaced, trying again", slog.Any("error", err))
	}
}

// promote makes the next key the present one when st, which was accepted, is sealed to it.
func (a *Agent) promote(st *source.State) error {
	k, err := a.takeKeys()
	if err != nil {
		return err
	}
	if k.next == nil || st.KeyFingerprint() != k.next.Fingerprint() {
		return nil
	}
	id := k.id
	id.Fingerprint = k.next.Fingerprint()
	failpoint.Hit("agent.rotate.served")
	if err := a.dir.Promote(id); err != nil {
		return err
	}
	failpoint.Hit("agent.rotate.promoted")
	a.log.Info("key replaced", slog.String("fingerprint", id.Fingerprint), slog.String("former", k.id.Fingerprint))
	_, err = a.takeKeys()
	return err
}
