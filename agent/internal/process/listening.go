// This file tells where a process takes connections.

package process

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/certferry/certferry/agent"
)

// socketsLimit bounds the table of sockets that is read: a busy machine has a million of them, at 150 bytes each.
const socketsLimit = 256 << 20

// Listening returns the TCP sockets at which a process takes connections, in its own network namespace, sorted. A
// socket for all IPv4 addresses has an empty host; one for all IPv6 addresses has the host [::] and may or may not
// take IPv4 too.
func (fsys FS) Listening(pid int) ([]agent.Listener, error) {
	inodes, err := fsys.sockets(pid)
	if err != nil {
		return nil, fmt.Errorf("list the sockets of process %d: %w", pid, err)
	}
	var found []agent.Listener
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		addresses, err := fsys.listeners(pid, table, inodes)
		if errors.Is(err, fs.ErrNotExist) && table == "net/tcp6" {
			continue // A kernel without IPv6.
		}
		if err != nil {
			return nil, fmt.Errorf("list the sockets of process %d: %w", pid, err)
		}
		for _, a := range addresses {
			found = append(found, agent.Listener{Network: "tcp", Address: a})
		}
	}
	slices.SortFunc(found, func(a, b agent.Listener) int { return strings.Compare(a.Address, b.Address) })
	return slices.Compact(found), nil
}

// sockets returns the inode numbers of the sockets that a process holds.
func (fsys FS) sockets(pid int) (map[string]bool, error) {
	dir := fsys.Path(pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	inodes := make(map[string]bool)
	for _, e := range entries {
		target, err := os.Readlink(fsys.Path(pid, "fd/"+e.Name()))
		if err != nil {
			continue // Closed meanwhile.
		}
		if rest, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes[strings.TrimSuffix(rest, "]")] = true
		}
	}
	return inodes, nil
}

// listeners reads the table of sockets for those in the state "listen" with one of the inodes.
func (fsys FS) listeners(pid int, table string, inodes map[string]bool) ([]string, error) {
	f, err := os.Open(fsys.Path(pid, table))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var found []string
	scanner := bufio.NewScanner(io.LimitReader(f, socketsLimit))
	for scanner.Scan() {
		// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
		fields := strings.Fields(scanner.Text())
		const listen = "0A"
		if len(fields) < 10 || fields[3] != listen || !inodes[fields[9]] {
			continue
		}
		address, err := parseAddress(fields[1])
		if err != nil {
			return nil, err
		}
		found = append(found, address)
	}
	return found, scanner.Err()
}

// parseAddress reads an address as the kernel prints it: 32-bit words in the machine's byte order, colon, port.
func parseAddress(s string) (string, error) {
	host, port, _ := strings.Cut(s, ":")
	raw, err1 := hex.DecodeString(host)
	number, err2 := strconv.ParseUint(port, 16, 16)
	if err := errors.Join(err1, err2); err != nil {
		return "", fmt.Errorf("read address %q: %w", s, err)
	}
	if len(raw) != 4 && len(raw) != 16 {
		return "", fmt.Errorf("read address %q: unknown length", s)
	}
	for word := range slices.Chunk(raw, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, _ := netip.AddrFromSlice(raw)
	if addr == netip.IPv4Unspecified() {
		return ":" + strconv.FormatUint(number, 10), nil
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)).String(), nil
}
