// This file measures what an attack costs in memory.

package gitstoretest

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// Growth runs f and returns by how much the memory of this process grew at most meanwhile, in bytes. Nothing else may
// run at the time. ok is false where the system does not tell (only Linux does, in proc_pid_status(5)).
func Growth(f func()) (bytes int64, ok bool) {
	debug.FreeOSMemory()
	// Writing 5 there sets the highest mark back to what is used now (proc_pid_clear_refs(5)).
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		f()
		return 0, false
	}
	before := highest()
	f()
	return highest() - before, before > 0
}

// highest is the most memory that this process used since the mark was set back, in bytes; 0 where it is not told.
func highest() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(status)) {
		if text, found := strings.CutPrefix(l, "VmHWM:"); found {
			kibibytes, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")), 10, 64)
			return kibibytes << 10
		}
	}
	return 0
}
