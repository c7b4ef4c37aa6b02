package daemon

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrRunning says that a hub has the data folder open.
var ErrRunning = errors.New("a hub is running on this data folder")

// lock keeps the data folder for one process. It ends with the process, however that ends.
type lock struct{ file *os.File }

func takeLock(p paths) (*lock, error) {
	file, err := os.OpenFile(p.lock(), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	fd := int(file.Fd())
	err = syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%w: stop it first (%s)", ErrRunning, p.dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock data folder: %w", err), file.Close())
	}
	return &lock{file}, nil
}

// Close lets others have the folder. Closing the file alone would not do: a child that was just forked holds it open
// until it runs its program.
func (l *lock) Close() error {
	return errors.Join(syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
}
