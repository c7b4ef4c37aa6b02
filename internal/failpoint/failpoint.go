// Package failpoint names the moments at which a process may be killed, so that tests can kill it exactly there.
//
// In a normal build Hit is empty and is inlined away. A build with the tag "failpoints" reads
// CERTFERRY_FAILPOINT, and the process ends itself with SIGKILL when it reaches the point named there.
package failpoint
