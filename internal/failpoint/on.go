//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var hits atomic.Int64

// Hit ends the process with SIGKILL, as a power cut would, when CERTFERRY_FAILPOINT is "name" or, for the
// n-th time this point is reached, "name:n".
func Hit(name string) {
	want, nth, counted := strings.Cut(os.Getenv("CERTFERRY_FAILPOINT"), ":") //nolint:forbidigo // a test sets it for one process
	if want != name {
		return
	}
	if n, err := strconv.ParseInt(nth, 10, 64); counted && (err != nil || hits.Add(1) != n) {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // SIGKILL is delivered asynchronously: nothing after the point may run.
}
