// This file decodes and checks the policy's YAML. It is strict: a policy with one doubtful line allows nothing.

package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/gitstore/manifest"
)

// kind is the value of the key kind.
const kind = "Policy"

// longestProbe bounds the probe's timeout: a deployment holds the lock while it waits.
const longestProbe = 5 * time.Minute

type document struct {
	APIVersion string                 `yaml:"apiVersion"`
	Kind       string                 `yaml:"kind"`
	Targets    map[string]*targetSpec `yaml:"targets"`
}

type targetSpec struct {
	Deployer    string        `yaml:"deployer"`
	Certificate string        `yaml:"certificate"`
	Key         string        `yaml:"key"`
	Chain       string        `yaml:"chain"`
	Combined    string        `yaml:"combined"`
	Keystore    *keystoreSpec `yaml:"keystore"`
	Owner       string        `yaml:"owner"`
	Group       string        `yaml:"group"`
	Mode        fileMode      `yaml:"mode"`
	Names       []string      `yaml:"names"`
	Probe       *probeSpec    `yaml:"probe"`
	Test        arguments     `yaml:"test"`
	Reload      arguments     `yaml:"reload"`
	Instance    *selectorSpec `yaml:"instance"`
}

type probeSpec struct {
	// None says that nothing can be looked at; it must be said, so that it is never forgotten.
	None        bool     `yaml:"none"`
	Addresses   []string `yaml:"addresses"`
	ServerNames []string `yaml:"serverNames"`
	Timeout     string   `yaml:"timeout"`
}

type selectorSpec struct {
	Binary  string `yaml:"binary"`
	Config  string `yaml:"config"`
	Prefix  string `yaml:"prefix"`
	PIDFile string `yaml:"pidFile"`
	Socket  string `yaml:"socket"`
}

// fileMode reads 0640 and "0640" alike; YAML itself would read the first in two ways.
type fileMode fs.FileMode

// UnmarshalYAML implements yaml.Unmarshaler.
func (m *fileMode) UnmarshalYAML(node *yaml.Node) error {
	if !modePattern.MatchString(node.Value) {
		return fmt.Errorf("line %d: mode must be octal digits such as 0640", node.Line)
	}
	bits, err := strconv.ParseUint(node.Value, 8, 12)
	if err != nil {
		return fmt.Errorf("line %d: mode: %w", node.Line, err)
	}
	*m = fileMode(bits)
	return nil
}

// arguments is a program and its arguments. A shell line is refused before it can be mistaken for one.
type arguments []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (a *arguments) UnmarshalYAML(node *yaml.Node) error {
	var list []string
	if node.Kind != yaml.SequenceNode || node.Decode(&list) != nil {
		return fmt.Errorf("line %d: must be a list of a program and its arguments, such as [/usr/sbin/apachectl, graceful]; no shell reads it", node.Line)
	}
	*a = list
	return nil
}

var (
	modePattern  = regexp.MustCompile(`^0?[0-7]{3}$`)
	namePattern  = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$|^[0-9]{1,9}$`)
	shellPattern = regexp.MustCompile(`^(ba|da|a|z|k|c|tc|fi)?sh$`)
	fieldPattern = regexp.MustCompile(`field (\S+) not found in type \S+`)
	goType       = regexp.MustCompile(` (in|into) (type )?\S*\bpolicy\.\w+|into \S+$`)
)

// Decode reads a policy from data.
func Decode(data []byte) (*Policy, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("decode policy: larger than %d bytes", maxSize)
	}
	var doc document
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("decode policy: %w", plain(err))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode policy: the file must hold one document and nothing after it")
	}
	if doc.APIVersion != manifest.APIVersion || doc.Kind != kind {
		return nil, fmt.Errorf("decode policy: must begin with apiVersion: %s and kind: %s", manifest.APIVersion, kind)
	}
	p := &Policy{targets: make(map[string]agent.Target, len(doc.Targets))}
	owners := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(doc.Targets)) {
		t, err := doc.Targets[name].target(name)
		if err != nil {
			return nil, fmt.Errorf("decode policy: target %q: %w", name, err)
		}
		for _, path := range outputs(t) {
			if other, taken := owners[path]; taken {
				return nil, fmt.Errorf("decode policy: target %q: %s is also a file of target %q", name, path, other)
			}
			owners[path] = name
		}
		p.targets[name] = t
	}
	return p, nil
}

// plain rewords the YAML library's errors for a person who has never seen this program's types.
func plain(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	}
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	lines := make([]string, len(te.Errors))
	for i, line := range te.Errors {
		line = fieldPattern.ReplaceAllString(line, `unknown key "$1"`)
		lines[i] = goType.ReplaceAllString(line, "")
	}
	return errors.New(strings.Join(lines, "; "))
}

func (s *targetSpec) target(name string) (agent.Target, error) {
	if s == nil {
		return agent.Target{}, errors.New("is empty")
	}
	if err := manifest.ValidName(name); err != nil {
		return agent.Target{}, err
	}
	t := agent.Target{
		Name: name, Deployer: s.Deployer, Certificate: s.Certificate, Key: s.Key, Chain: s.Chain, Combined: s.Combined,
		Owner: s.Owner, Group: s.Group, Mode: fs.FileMode(s.Mode), Names: s.Names,
		Test: s.Test, Reload: s.Reload,
	}
	if s.Instance != nil {
		t.Instance = agent.Selector(*s.Instance)
	}
	if s.Keystore != nil {
		t.Keystore = s.Keystore.keystore()
	}
	checks := []func() error{
		func() error { return checkFiles(t) },
		func() error { return checkKeystore(s.Keystore) },
		func() error { return checkDeployer(s, t) },
		func() error { return checkOwner(t) },
		func() error { return checkNames("names", t.Names) },
		func() error { return checkCommand("test", t.Test) },
		func() error { return checkCommand("reload", t.Reload) },
		func() error { return checkInstance(t.Instance) },
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return agent.Target{}, err
		}
	}
	var err error
	t.Probe, err = s.Probe.probe()
	return t, err
}

func checkOwner(t agent.Target) error {
	if t.Mode != 0 && (t.Mode&^0o660 != 0 || t.Mode&0o400 == 0) {
		return fmt.Errorf("mode %04o: a key may be readable by its owner and group only, such as 0640", t.Mode)
	}
	for _, who := range [][2]string{{"owner", t.Owner}, {"group", t.Group}} {
		if who[1] != "" && !namePattern.MatchString(who[1]) {
			return fmt.Errorf("%s: %q is not a user or group name", who[0], who[1])
		}
	}
	return nil
}

func checkPath(key, path string) error {
	switch {
	case path == "":
		return fmt.Errorf("%s is missing", key)
	case strings.ContainsFunc(path, isControl):
		return fmt.Errorf("%s: path holds a control character", key)
	case !filepath.IsAbs(path):
		return fmt.Errorf("%s: path %q must be absolute", key, path)
	case filepath.Clean(path) != path || path == "/":
		return fmt.Errorf("%s: path %q must be plain, without \"..\", \"//\" or a trailing slash", key, path)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }

func checkNames(key string, names []string) error {
	for i, name := range names {
		if err := manifest.ValidDNSName(name); err != nil {
			return fmt.Errorf("%s, entry %d: %w", key, i+1, err)
		}
	}
	return nil
}

func checkCommand(key string, argv []string) error {
	if argv == nil {
		return nil
	}
	if len(argv) == 0 {
		return fmt.Errorf("%s: the list is empty; leave the key out", key)
	}
	if err := checkPath(key, argv[0]); err != nil {
		return err
	}
	for _, arg := range argv[1:] {
		if strings.ContainsFunc(arg, isControl) {
			return fmt.Errorf("%s: an argument holds a control character", key)
		}
		if shellPattern.MatchString(filepath.Base(argv[0])) && strings.HasPrefix(arg, "-") && strings.Contains(arg, "c") {
			return fmt.Errorf("%s: a shell line is not allowed; name a program, or a script file that only root may write", key)
		}
	}
	return nil
}

func checkInstance(n agent.Selector) error {
	for _, p := range [][2]string{{"binary", n.Binary}, {"config", n.Config}, {"prefix", n.Prefix}, {"pidFile", n.PIDFile}, {"socket", n.Socket}} {
		if p[1] == "" {
			continue
		}
		if err := checkPath("instance."+p[0], p[1]); err != nil {
			return err
		}
	}
	return nil
}

func (s *probeSpec) probe() (agent.Probe, error) {
	if s == nil {
		return agent.Probe{}, errors.New("probe is missing: say at which addresses a TLS client sees the certificate, or none: true")
	}
	if s.None != (len(s.Addresses) == 0) {
		return agent.Probe{}, errors.New("probe: name addresses, or say none: true, not both and not neither")
	}
	if s.None && (len(s.ServerNames) > 0 || s.Timeout != "") {
		return agent.Probe{}, errors.New("probe: none: true leaves nothing to say")
	}
	for _, address := range s.Addresses {
		host, port, err := net.SplitHostPort(address)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" || host == "*" || strings.ContainsFunc(host, isControl) {
			return agent.Probe{}, fmt.Errorf("probe: address %q must be host:port, such as 127.0.0.1:443", address)
		}
	}
	if err := checkNames("probe.serverNames", s.ServerNames); err != nil {
		return agent.Probe{}, err
	}
	p := agent.Probe{Addresses: s.Addresses, ServerNames: s.ServerNames}
	if s.Timeout != "" {
		d, err := time.ParseDuration(s.Timeout)
		if err != nil || d < time.Second || d > longestProbe {
			return agent.Probe{}, fmt.Errorf("probe: timeout %q must be a duration from 1s to %s", s.Timeout, longestProbe)
		}
		p.Timeout = d
	}
	return p, nil
}
