// This file tells whether two processes see the same files. Service managers give a server, and the agent too, a mount
// namespace of its own for a private /tmp alone: that is no container.

package process

import (
	"path"
	"slices"
	"strings"
)

// mountsLimit bounds the table of mounts that is read.
const mountsLimit = 16 << 20

// private are the folders that service managers hide or replace, and that hold no server's configuration:
// PrivateTmp, PrivateDevices, ProtectKernelTunables, ProtectKernelModules, ProtectControlGroups, LoadCredential.
var private = []string{"/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/lib/modules", "/usr/lib/modules", "/run/credentials", "/run/systemd"}

// origin is where the files of a folder come from: a file system, and the folder in it.
type origin struct{ device, folder string }

// mounts are the origins of the folders at which something is mounted.
type mounts map[string]origin

// mountsOf reads the mounts that a process sees; pid is a number or "self".
func (fsys FS) mountsOf(pid string) (mounts, error) {
	data, err := read(fsys.dir()+"/"+pid+"/mountinfo", mountsLimit)
	if err != nil {
		return nil, err
	}
	m := make(mounts)
	for line := range strings.Lines(string(data)) {
		// id parent device folder mount-point options …; of several at one point, the last one is seen.
		fields := strings.Fields(line)
		if len(fields) < 6 {
			continue
		}
		m[unescape(fields[4])] = origin{fields[2], unescape(fields[3])}
	}
	return m, nil
}

// unescape decodes the characters that would end a field.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// origin is where the files of a folder come from.
func (m mounts) origin(folder string) origin {
	for at := folder; ; at = at[:strings.LastIndexByte(at, '/')] {
		if at == "" {
			at = "/"
		}
		if o, ok := m[at]; ok {
			return origin{o.device, path.Join(o.folder, strings.TrimPrefix(folder, at))}
		}
		if at == "/" {
			return origin{}
		}
	}
}

// sameFiles says that every path means the same file in both, private folders apart.
func sameFiles(a, b mounts) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	for _, one := range []mounts{a, b} {
		for at := range one {
			hidden := slices.ContainsFunc(private, func(p string) bool { return at == p || strings.HasPrefix(at, p+"/") })
			if !hidden && a.origin(at) != b.origin(at) {
				return false
			}
		}
	}
	return true
}
