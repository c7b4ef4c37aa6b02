// This file lets people push to main: it joins the Git door with the service that judges intent, and reads the keys of
// operators.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitserve"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/intent"
)

// pushes decides about pushes by people.
type pushes struct {
	intent interface {
		Push(ctx context.Context, actor hub.Principal, in *gitrepo.Incoming, tip gitrepo.Hash) (intent.Pushed, error)
	}
}

// Receive implements gitserve.Receiver.
func (p pushes) Receive(ctx context.Context, push gitserve.Push) ([]string, error) {
	actor := hub.Principal{Kind: hub.Person, Name: push.Grant.Name, Role: apiv1.Role(push.Grant.Role)}
	out, err := p.intent.Push(ctx, actor, push.Incoming, push.New)
	switch {
	case errors.Is(err, gitstore.ErrConflict):
		return nil, &gitserve.RefusalError{Reason: "fetch first"}
	case errors.Is(err, gitstore.ErrInvalid):
		// Which file it is would need what was refused to be read; git show --stat tells the pusher.
		return nil, &gitserve.RefusalError{
			Reason: "forbidden content", Notes: []string{
				"The commits hold something that Git allows and this repository does not. It takes plain files and folders,",
				"with letters, digits, dot, dash and underscore in their names: no links, no executable files, no submodules.",
				"Nothing was stored. git log --stat origin/main.. shows what you pushed.",
			},
		}
	case err != nil:
		return nil, err
	case !out.Applied:
		return nil, &gitserve.RefusalError{Reason: refusedReason(len(out.Lines)), Notes: out.Lines}
	}
	return append([]string{"Certferry took your change:"}, out.Lines...), nil
}

func refusedReason(faults int) string {
	if faults == 1 {
		return "1 fault: see above"
	}
	return fmt.Sprintf("%d faults: see above", faults)
}

// operatorKeys reads the folder of operators' public keys: <user>.asc, ASCII-armored.
func operatorKeys(dir string) func() ([]*seal.PublicKey, error) {
	return func() ([]*seal.PublicKey, error) {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read keys of operators: %w", err)
		}
		var keys []*seal.PublicKey
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".asc") {
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, e.Name())) //nolint:gosec // a file of the hub's own folder
			if err != nil {
				return nil, fmt.Errorf("read keys of operators: %w", err)
			}
			more, err := seal.ParseSigners(data)
			if err != nil {
				return nil, fmt.Errorf("read key of operator %s: %w", strings.TrimSuffix(e.Name(), ".asc"), err)
			}
			keys = append(keys, more...)
		}
		return keys, nil
	}
}
