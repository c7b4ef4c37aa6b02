// Package policy reads the file in which a server's administrator says what the agent may touch and run: the
// targets, their files, and where a served certificate is looked at. No command and no path ever comes from the
// hub, so this file is the whole of what a hub in wrong hands could reach.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/probe"
)

// Path is where the policy stands unless the agent's configuration says otherwise.
const Path = "/etc/certferry/policy.yaml"

// maxSize caps the file: a policy of a thousand targets is smaller.
const maxSize = 1 << 20

// Policy is what one server allows.
type Policy struct{ targets map[string]agent.Target }

// Load reads the policy file at path and the passwords of the key stores in it. Whoever may write these files is root on
// this server, so Load refuses one that somebody other than root or the running user owns or may write, or could swap for
// another.
func Load(path string) (*Policy, error) {
	data, err := readTrusted(path)
	if err != nil {
		return nil, fmt.Errorf("load policy %s: %w", path, err)
	}
	p, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("load policy %s: %w", path, err)
	}
	for name, t := range p.targets {
		if t.Keystore.Path == "" {
			continue
		}
		if t.Keystore.Password, err = readPassword(t.Keystore.PasswordFile); err != nil {
			return nil, fmt.Errorf("load policy %s: target %q: password file %s: %w", path, name, t.Keystore.PasswordFile, err)
		}
		p.targets[name] = t
	}
	return p, nil
}

// readPassword reads the one line of a password file.
func readPassword(path string) (agent.Password, error) {
	data, err := readTrusted(path)
	if err != nil {
		return "", err
	}
	password := strings.TrimRight(string(data), "\r\n")
	return agent.Password(password), checkPassword(password)
}

func readTrusted(path string) ([]byte, error) {
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := trusted(folder); err != nil {
		return nil, fmt.Errorf("its folder %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) //nolint:gosec // the administrator names the file
	if errors.Is(err, syscall.ELOOP) {
		return nil, errors.New("is a symbolic link; put the file itself here")
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	if err := trusted(info); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

func trusted(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("has no owner that could be checked")
	}
	if uid := int(st.Uid); uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("belongs to user %d; it must belong to root (chown root)", uid)
	}
	if info.Mode().Perm()&0o022 != 0 && (!info.IsDir() || info.Mode()&fs.ModeSticky == 0) {
		return fmt.Errorf("may be written by others (mode %04o); run chmod go-w", info.Mode().Perm())
	}
	return nil
}

// Target returns the target called target if it is one of the deployer called deployer, and an error that wraps
// agent.ErrNotAllowed otherwise.
func (p *Policy) Target(deployer, target string) (agent.Target, error) {
	t, ok := p.targets[target]
	if !ok {
		return agent.Target{}, fmt.Errorf("target %q does not stand in the policy: %w", target, agent.ErrNotAllowed)
	}
	if t.Deployer != deployer {
		return agent.Target{}, fmt.Errorf("target %q is for the deployer %q, not %q: %w", target, t.Deployer, deployer, agent.ErrNotAllowed)
	}
	return t, nil
}

// Targets returns all targets, sorted by name.
func (p *Policy) Targets() []agent.Target {
	return slices.SortedFunc(maps.Values(p.targets), func(a, b agent.Target) int { return cmp.Compare(a.Name, b.Name) })
}

// Allows says whether a certificate for names may be deployed at t; the error wraps agent.ErrNotAllowed. A
// wildcard in the policy allows itself and every name of one label more.
func Allows(t agent.Target, names []string) error {
	if len(t.Names) == 0 {
		return nil
	}
	for _, name := range names {
		_, parent, _ := strings.Cut(name, ".")
		if !slices.Contains(t.Names, name) && !slices.Contains(t.Names, "*."+parent) {
			return fmt.Errorf("name %q at target %q: %w", name, t.Name, agent.ErrNotAllowed)
		}
	}
	return nil
}

// Explain writes what p allows, for the person who runs "policy check".
func (p *Policy) Explain(w io.Writer) error {
	for i, t := range p.Targets() {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := explain(w, t); err != nil {
			return err
		}
	}
	return nil
}

func explain(w io.Writer, t agent.Target) error {
	mode := "as it is (0600 if new)"
	if t.Mode != 0 {
		mode = fmt.Sprintf("%04o", t.Mode)
	}
	var rows [][2]string
	for _, key := range outputKeys(t) {
		if key[1] != "" {
			rows = append(rows, [2]string{"writes " + key[0], key[1]})
		}
	}
	if k := t.Keystore; k.Path != "" {
		rows = append(rows, [2]string{"keystore is", keystoreKind(k)}, [2]string{"keystore password", "in " + k.PasswordFile})
	}
	rows = append(rows, [][2]string{
		{"key owner", cmp.Or(t.Owner, "as it is (root if new)")},
		{"key group", cmp.Or(t.Group, "as it is (root if new)")},
		{"key mode", mode},
		{"for names", cmp.Or(strings.Join(t.Names, ", "), "any")},
		{"looks at", lookedAt(t)},
	}...)
	switch t.Deployer {
	case "files":
		rows = append(rows, [2]string{"tests by", command(t.Test)}, [2]string{"reloads by", command(t.Reload)})
	default:
		rows = append(rows, [2]string{"tests and reloads", t.Deployer + instance(t.Instance)})
	}
	if _, err := fmt.Fprintf(w, "target %s (%s)\n", t.Name, t.Deployer); err != nil {
		return err
	}
	for _, row := range rows {
		if _, err := fmt.Fprintf(w, "  %-19s %s\n", row[0], row[1]); err != nil {
			return err
		}
	}
	return nil
}

func keystoreKind(k agent.Keystore) string {
	switch {
	case k.Format == agent.FormatJKS:
		return fmt.Sprintf("jks, entry %q", k.Alias)
	case k.Legacy:
		return "pkcs12 as old software reads it (3DES, SHA-1)"
	}
	return string(k.Format)
}

func lookedAt(t agent.Target) string {
	if len(t.Probe.Addresses) == 0 {
		return "nothing: what is served is not checked"
	}
	names := cmp.Or(strings.Join(t.Probe.ServerNames, ", "), "the certificate's names")
	return fmt.Sprintf("%s as %s, for up to %s", strings.Join(t.Probe.Addresses, ", "), names, probe.Budget(t))
}

func instance(n agent.Selector) string {
	var b strings.Builder
	for _, part := range [][2]string{{"binary", n.Binary}, {"config", n.Config}, {"prefix", n.Prefix}, {"pid file", n.PIDFile}, {"socket", n.Socket}} {
		if part[1] != "" {
			fmt.Fprintf(&b, ", %s %s", part[0], part[1])
		}
	}
	if b.Len() == 0 {
		return ", the one that runs"
	}
	return b.String()
}

func command(argv []string) string {
	if len(argv) == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%q", argv)
}
