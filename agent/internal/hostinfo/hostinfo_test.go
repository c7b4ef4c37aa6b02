package hostinfo

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestReadFromATree(t *testing.T) {
	t.Parallel()
	tree := fstest.MapFS{
		"usr/lib/os-release":             {Data: []byte("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n")},
		"proc/meminfo":                   {Data: []byte("MemTotal:       2048000 kB\nMemFree: 1 kB\n")},
		"proc/sys/kernel/osrelease":      {Data: []byte("6.1.0\n")},
		"proc/sys/kernel/random/boot_id": {Data: []byte("boot\n")},
		"etc/machine-id":                 {Data: []byte("0123456789abcdef\n")},
	}
	got := read(tree, "1.2.3")
	if got.OS != "Debian GNU/Linux 12" || got.MemoryMiB != 2000 || got.Kernel != "6.1.0" || got.BootID != "boot" || got.AgentVersion != "1.2.3" {
		t.Errorf("facts: %+v", got)
	}
	if len(got.MachineIDHash) != 64 || strings.Contains(got.MachineIDHash, "0123456789abcdef") {
		t.Errorf("machine id hash: %q", got.MachineIDHash)
	}
}

func TestMissingFactsAreLeftOut(t *testing.T) {
	t.Parallel()
	got := read(fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal: many\n")}}, "v")
	if got.OS != "" || got.MemoryMiB != 0 || got.MachineIDHash != "" {
		t.Errorf("facts: %+v", got)
	}
	if here := Read("v"); here.CPUs < 1 || here.Arch == "" || here.MemoryMiB == 0 {
		t.Errorf("facts of this machine: %+v", here)
	}
}
