package process_test

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"

	"github.com/certferry/certferry/agent/internal/process"
)

// TestSameFiles shows which mounts make a process foreign that has a mount namespace of its own.
func TestSameFiles(t *testing.T) {
	t.Parallel()
	const host = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n23 22 0:5 / /dev rw - devtmpfs udev rw\n24 22 8:2 / /srv rw - ext4 /dev/sda2 rw\n"
	tests := []struct {
		name, mounts string
		foreign      bool
	}{
		{"the same", host, false},
		{"a private /tmp", host + "30 22 8:1 /tmp/systemd-private-x/tmp /tmp rw - ext4 /dev/sda1 rw\n31 22 8:1 /var/tmp/y /var/tmp rw - ext4 /dev/sda1 rw\n", false},
		{"private devices", host + "30 22 0:50 / /dev rw - tmpfs none rw\n31 30 0:51 / /dev/pts rw - devpts none rw\n", false},
		{"a folder read-only", host + "30 22 8:1 /usr /usr ro - ext4 /dev/sda1 rw\n31 24 8:2 /www /srv/www ro - ext4 /dev/sda2 rw\n", false},
		{"hidden modules", host + "30 22 0:60 /systemd/inaccessible/dir /usr/lib/modules ro - tmpfs none rw\n", false},
		{"another folder at /etc", host + "30 22 8:1 /other/etc /etc rw - ext4 /dev/sda1 rw\n", true},
		{"a hidden home", host + "30 22 0:60 /systemd/inaccessible/dir /home ro - tmpfs none rw\n", true},
		{"a folder like /tmp", host + "30 22 0:60 / /tmpfiles rw - tmpfs none rw\n", true},
		{"less", strings.Replace(host, " /srv ", " /srv2 ", 1), true},
		{"mounted over", host + "30 24 8:3 / /srv rw - ext4 /dev/sda3 rw\n", true},
		{"a space", host + "30 22 8:1 /a\\040b /a\\040b rw - ext4 /dev/sda1 rw\n", false},
		{"a container", "40 1 0:70 / / rw - overlay none rw\n", true},
		{"a disk of its own", strings.Replace(host, "8:1", "8:9", 1), true},
		{"no root folder", "24 22 8:2 / /srv rw - ext4 /dev/sda2 rw\n", true},
		{"nothing", "garbage\n", true},
	}
	for _, tt := range tests {
		p := newProc(t)
		p.link(t, "self/ns/mnt", "mnt:[1]")
		p.write(t, "self/mountinfo", host)
		p.link(t, "1/root", "/")
		p.link(t, "1/ns/mnt", "mnt:[2]")
		p.write(t, "1/mountinfo", tt.mounts)
		if _, foreign, err := p.fs().Foreign(1); foreign != tt.foreign || err != nil {
			t.Errorf("%s: foreign %v, %v", tt.name, foreign, err)
		}
	}
}

// TestRealNamespaces: a private /tmp is no other world, another folder at /etc is.
func TestRealNamespaces(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("SKIP: no mount namespaces here: %v: %s", err, out)
	}
	for folder, want := range map[string]bool{"/tmp": false, "/etc": true} {
		cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "mount -t tmpfs none $1 && echo ready && exec sleep 600", "sh", folder)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if _, foreign, err := process.FS("").Foreign(cmd.Process.Pid); foreign != want || err != nil {
			t.Errorf("%s: foreign %v, %v", folder, foreign, err)
		}
	}
}
