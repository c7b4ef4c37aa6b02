// Package hostinfo reads facts about the machine from /proc and /etc. They are shown to people and decide nothing.
// No program is started.
package hostinfo

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/certferry/certferry/hub/apiv1"
)

// machineIDSalt keeps the machine id itself on the machine: it identifies the host to other software too.
const machineIDSalt = "certferry-machine-id-v1\n"

// Read returns the facts; what cannot be read is left out.
func Read(version string) apiv1.Facts { return read(os.DirFS("/"), version) }

func read(root fs.FS, version string) apiv1.Facts {
	facts := apiv1.Facts{
		OS: osName(root), Kernel: line(root, "proc/sys/kernel/osrelease"), Arch: runtime.GOARCH,
		CPUs: runtime.NumCPU(), MemoryMiB: memoryMiB(root), Addresses: addresses(),
		BootID: line(root, "proc/sys/kernel/random/boot_id"), AgentVersion: version,
	}
	facts.Hostname, _ = os.Hostname()
	if id := line(root, "etc/machine-id"); id != "" {
		sum := sha256.Sum256([]byte(machineIDSalt + id))
		facts.MachineIDHash = hex.EncodeToString(sum[:])
	}
	return facts
}

func line(root fs.FS, path string) string {
	data, err := fs.ReadFile(root, path)
	if err != nil {
		return ""
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	return strings.TrimSpace(string(first))
}

func osName(root fs.FS) string {
	for _, path := range []string{"etc/os-release", "usr/lib/os-release"} {
		if name := field(root, path, "PRETTY_NAME="); name != "" {
			return strings.Trim(name, `"'`)
		}
	}
	return ""
}

func memoryMiB(root fs.FS) int64 {
	kib, _, _ := strings.Cut(field(root, "proc/meminfo", "MemTotal:"), " ")
	n, err := strconv.ParseInt(kib, 10, 64)
	if err != nil {
		return 0
	}
	return n / 1024
}

// field returns the rest of the first line that starts with prefix.
func field(root fs.FS, path, prefix string) string {
	data, err := fs.ReadFile(root, path)
	if err != nil {
		return ""
	}
	for scanner := bufio.NewScanner(bytes.NewReader(data)); scanner.Scan(); {
		if rest, ok := strings.CutPrefix(scanner.Text(), prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// addresses lists the machine's global unicast addresses, sorted.
func addresses() []string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var found []string
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			found = append(found, ip.IP.String())
		}
	}
	slices.Sort(found)
	return found[:min(len(found), 64)]
}
