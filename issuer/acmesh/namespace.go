// This file puts a wall between runs of acme.sh, where the hub is root: all of them run as one user, and a DNS hook is
// foreign code. Each run gets PID and mount namespaces of its own, in which it sees no other process and no other order's
// folder, and with which all that it started ends.

package acmesh

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// enter makes the namespaces' view, gives up root and runs the words behind its own. It runs as root in a folder that its user may
// write, so that it looks for programs in the system's folders only. The shell that stays is the first process of the
// PID namespace: the kernel ends all others with it. $hidden is a folder that is closed to the user and lends its place
// for a moment.
const enter = `set -e
own=$1 orders=$2 hidden=$3 uid=$4 gid=$5
shift 5
path=$PATH
PATH=` + programDirs + `
mount -t proc -o nosuid,nodev,noexec proc /proc
mount --bind "$own" "$hidden"
mount -t tmpfs -o mode=0711,size=64k,nosuid,nodev tmpfs "$orders"
mkdir "$own"
mount --move "$hidden" "$own"
cd "$own"
setpriv=$(command -v setpriv)
PATH=$path
exec "$setpriv" --reuid="$uid" --regid="$gid" --clear-groups --no-new-privs --pdeathsig=KILL /bin/sh -c '"$@"; exit "$?"' sh "$@"`

// wall says whether namespaces can be made. It is found out once.
type wall struct {
	once  sync.Once
	works bool
}

// enclose lets cmd run as a user in namespaces of its own, or only as the user where there can be none.
func (i *Issuer) enclose(ctx context.Context, cmd *exec.Cmd, as *syscall.Credential) {
	i.wall.once.Do(func() {
		if as == nil {
			i.cfg.Logger.WarnContext(ctx, "acme.sh and DNS hooks run as the hub's own user and can read its keys: run the hub as root and set acme_user")
			return
		}
		err := i.tryWall(as)
		if i.wall.works = err == nil; err != nil {
			i.cfg.Logger.WarnContext(ctx, "acme.sh gets no namespaces of its own: DNS hooks see the orders that run beside them", slog.Any("error", err))
		}
	})
	switch {
	case i.wall.works:
		i.enter(cmd, as)
	case as != nil:
		cmd.SysProcAttr.Credential = as
	}
}

// enter puts cmd behind the wall.
func (i *Issuer) enter(cmd *exec.Cmd, as *syscall.Credential) {
	words := []string{"/bin/sh", "-c", enter, "sh", cmd.Dir, i.cfg.WorkDir, i.cfg.StateDir, strconv.Itoa(int(as.Uid)), strconv.Itoa(int(as.Gid)), cmd.Path}
	cmd.Path, cmd.Args = "/bin/sh", append(words, cmd.Args[1:]...)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // mounts of this process are not changed: they are made private
}

// tryWall enters with a program that does nothing.
func (i *Issuer) tryWall(as *syscall.Credential) error {
	dir, err := os.MkdirTemp(i.cfg.WorkDir, ".wall-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(dir) }()
	cmd := exec.Command("/bin/sh", "-c", "exit 0") //nolint:noctx // it ends by itself
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + filepath.Join(dir, "bin") + ":" + programDirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	i.enter(cmd, as)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make namespaces: %w: %s", err, oneLine(string(out)))
	}
	return nil
}
