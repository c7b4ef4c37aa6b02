// This file speaks HAProxy's runtime API: certificates are replaced in memory, one transaction each, and none is left open.

package haproxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // HAProxy names certificates by it; nothing rests on it
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/atomicfile"
)

const (
	// askTimeout bounds one question, answerLimit its answer: ten thousand certificates are listed in one megabyte.
	askTimeout  = 10 * time.Second
	answerLimit = 8 << 20
)

// socket is the path of an administration or master socket.
type socket string

// ask sends one command and returns the answer. Commands may hold private keys, so that no error repeats them.
func (s socket) ask(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", string(s))
	if err != nil {
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
			err = errors.Join(err, agent.ErrNotRunning)
		}
		return "", fmt.Errorf("ask haproxy: %w", err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := checkPeer(conn); err != nil {
		return "", fmt.Errorf("ask haproxy at %s: %w", s, err)
	}
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", fmt.Errorf("ask haproxy at %s: %w", s, errors.Join(err, ctx.Err()))
	}
	answer, err := io.ReadAll(io.LimitReader(conn, answerLimit))
	if err != nil {
		return "", fmt.Errorf("ask haproxy at %s: %w", s, errors.Join(err, ctx.Err()))
	}
	return strings.TrimSpace(string(answer)), nil
}

// checkPeer wants root or the running user to have opened the socket: private keys are sent to it.
func checkPeer(conn net.Conn) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("it is no Unix socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if peerErr != nil {
		return peerErr
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d opened it; it must be root's", peer.Uid)
	}
	return nil
}

// pid is the process that answers at the socket.
func (s socket) pid(ctx context.Context) (int, error) {
	answer, err := s.ask(ctx, "show info")
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(field(answer, "Pid"))
	if err != nil {
		return 0, fmt.Errorf("ask haproxy at %s for its process id: it answers %q", s, firstLine(answer))
	}
	return pid, nil
}

// field returns what follows "name:" in an answer.
func field(answer, name string) string {
	for line := range strings.Lines(answer) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line[:min(len(line), 200)]
}

// loaded is one certificate in HAProxy's memory, under the name that its configuration gives it.
type loaded struct {
	name string
	// open says that a transaction for it was begun and not ended.
	open bool
}

func (s socket) certificates(ctx context.Context) ([]loaded, error) {
	answer, err := s.ask(ctx, "show ssl cert")
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(answer, "#") {
		return nil, fmt.Errorf("list haproxy's certificates at %s: it answers %q; the socket needs \"level admin\" and HAProxy 2.2 or later", s, firstLine(answer))
	}
	var all []loaded
	lines := bufio.NewScanner(strings.NewReader(answer))
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r ")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, open := strings.CutPrefix(line, "*")
		all = append(all, loaded{name: name, open: open})
	}
	return all, lines.Err()
}

// updateAll brings each certificate in memory in line with its file: those of t in any case, others where the leaf
// differs. A reload stands for a whole server, and the way back is the same with other files.
func updateAll(ctx context.Context, s socket, cwd string, t agent.Target) (output string, err error) {
	all, err := s.certificates(ctx)
	if err != nil {
		return "", err
	}
	// Whoever left a transaction open, such as an agent that was killed, no other can begin before it ends.
	for _, c := range all {
		if c.open {
			if err := s.abort(ctx, c.name); err != nil {
				return "", err
			}
		}
	}
	known := false
	for _, c := range all {
		if c.open {
			continue // It stands in the list once more.
		}
		path := absolute(cwd, c.name)
		mine := path == t.Combined || path == t.Certificate
		known = known || mine
		output, err := s.update(ctx, c.name, path, mine)
		if err != nil {
			return output, fmt.Errorf("update %s in haproxy: %w", path, err)
		}
	}
	if !known && (t.Combined != "" || t.Certificate != "") {
		return "", fmt.Errorf("haproxy has not loaded %s: its configuration does not name it, or the file was made after its start; restart haproxy", cmp.Or(t.Combined, t.Certificate))
	}
	return "", nil
}

// update replaces one certificate if its file holds another leaf, or if always is set.
func (s socket) update(ctx context.Context, name, path string, always bool) (output string, err error) {
	payload, leaf, err := read(path)
	if errors.Is(err, fs.ErrNotExist) && !always {
		return "", nil // One that came over this socket and has no file.
	}
	if err != nil {
		return "", err
	}
	now, err := s.fingerprint(ctx, name)
	if err != nil {
		return "", err
	}
	if now == leaf && !always {
		return "", nil
	}
	return s.replace(ctx, name, payload, leaf)
}

// replace carries out one transaction. It is committed or aborted in any case, also when ctx ends in the middle.
func (s socket) replace(ctx context.Context, name, payload, leaf string) (output string, err error) {
	done := context.WithoutCancel(ctx)
	answer, err := s.ask(done, "set ssl cert "+escape(name)+" <<\n"+payload)
	if err != nil || !strings.Contains(answer, "Transaction ") {
		return answer, errors.Join(errors.New("haproxy refuses the certificate"), err, s.abort(done, name))
	}
	answer, err = s.ask(done, "commit ssl cert "+escape(name))
	if err != nil || !strings.Contains(answer, "Success!") {
		return answer, errors.Join(errors.New("haproxy does not commit the certificate"), err, s.abort(done, name))
	}
	now, err := s.fingerprint(done, name)
	if err != nil {
		return "", err
	}
	if now != leaf {
		return "", errors.New("haproxy says that it took the certificate and still has another")
	}
	return "", nil
}

// abort ends a transaction that was not committed. That there is none is well.
func (s socket) abort(ctx context.Context, name string) error {
	answer, err := s.ask(ctx, "abort ssl cert "+escape(name))
	if err != nil {
		return fmt.Errorf("abort the transaction: %w", err)
	}
	if strings.Contains(answer, "aborted") || strings.Contains(answer, "No ongoing transaction") {
		return nil
	}
	return fmt.Errorf("abort the transaction: haproxy answers %q", firstLine(answer))
}

// fingerprint is the SHA-1 of the leaf that HAProxy has, upper-case hex.
func (s socket) fingerprint(ctx context.Context, name string) (string, error) {
	answer, err := s.ask(ctx, "show ssl cert "+escape(name))
	if err != nil {
		return "", err
	}
	if hash := field(answer, "SHA1 FingerPrint"); hash != "" {
		return hash, nil
	}
	return "", fmt.Errorf("ask haproxy what it serves: it answers %q", firstLine(answer))
}

// escape protects what would end a word of a command.
func escape(name string) string {
	return strings.NewReplacer(`\`, `\\`, " ", `\ `, ";", `\;`, "#", `\#`).Replace(name)
}

// read returns the PEM blocks of a certificate's file, and of the key beside it where it holds none, as one payload, which
// an empty line ends; and the SHA-1 of its leaf.
func read(path string) (payload, leaf string, err error) {
	data, err := readFile(path)
	if err != nil {
		return "", "", err
	}
	out, leaf, hasKey := blocks(data)
	if leaf == "" {
		return "", "", fmt.Errorf("%s holds no certificate", path)
	}
	if !hasKey {
		key, err := readFile(path + ".key")
		if err != nil {
			return "", "", err
		}
		more, _, _ := blocks(key)
		out = append(out, more...)
	}
	return string(out), leaf, nil
}

func readFile(path string) ([]byte, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	data, _, err := atomicfile.Read(resolved)
	return data, err
}

// blocks encodes the PEM blocks of data anew: comments, headers and empty lines are gone.
func blocks(data []byte) (out []byte, leaf string, hasKey bool) {
	var buffer bytes.Buffer
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return buffer.Bytes(), leaf, hasKey
		}
		if block.Type == "CERTIFICATE" && leaf == "" {
			if _, err := x509.ParseCertificate(block.Bytes); err == nil {
				sum := sha1.Sum(block.Bytes) //nolint:gosec // see the import
				leaf = strings.ToUpper(hex.EncodeToString(sum[:]))
			}
		}
		hasKey = hasKey || strings.HasSuffix(block.Type, "PRIVATE KEY")
		_ = pem.Encode(&buffer, &pem.Block{Type: block.Type, Bytes: block.Bytes}) // a Buffer takes everything
	}
}
