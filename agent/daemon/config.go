// Package daemon wires the agent together: configuration, enrolment, the loop of poll, verify, deploy and report,
// and what the command line asks of it. It is the only place that chooses drivers.
package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// EnvPrefix precedes the upper-case name of each key of the configuration in the environment.
const EnvPrefix = "CERTFERRY_AGENT_"

// Config is the agent's configuration, /etc/certferry/agent.yaml. The zero value of each key is usable.
type Config struct {
	// StateDir holds identity, history, backups and waiting reports; /var/lib/certferry by default.
	StateDir string `yaml:"state_dir"`
	// Policy is the file that says what may be deployed here; /etc/certferry/policy.yaml by default.
	Policy string `yaml:"policy"`
	// CAFile holds the PEM certificates that the hub's and the remote's TLS certificates must chain to; the
	// system's own by default.
	CAFile string `yaml:"ca_file"`
	// PollInterval is the time between two looks at the remote, with a fifth of jitter; 60s by default.
	PollInterval time.Duration `yaml:"poll_interval"`
	// Remotes are further Git remotes, which are asked in turn after the hub's own while that does not answer; file
	// only. An entry with the name hub and nothing else gives the hub's own another place.
	Remotes []RemoteConfig `yaml:"remotes"`
	// LogLevel is debug, info, warn or error; info by default.
	LogLevel string `yaml:"log_level"`
	// LogFormat is text or json; text by default.
	LogFormat string `yaml:"log_format"`
}

// set gives the key from the environment its value.
func (c *Config) set(key, value string) error {
	switch key {
	case "state_dir":
		c.StateDir = value
	case "policy":
		c.Policy = value
	case "ca_file":
		c.CAFile = value
	case "poll_interval":
		d, err := time.ParseDuration(value)
		if err != nil {
			return errors.New("not a duration such as 60s")
		}
		c.PollInterval = d
	case "remotes":
		return errors.New("it is a list of settings: write it into the file")
	case "log_level":
		c.LogLevel = value
	case "log_format":
		c.LogFormat = value
	default:
		return errors.New("unknown key")
	}
	return nil
}

// LoadConfig reads the file at path, then the environment, whose variables win. A missing file is an error only
// when required is set. Unknown keys are refused with their line.
func LoadConfig(path string, required bool, environ []string) (Config, error) {
	var c Config
	data, err := os.ReadFile(path) //nolint:gosec // the administrator names the file
	switch {
	case errors.Is(err, fs.ErrNotExist) && !required:
	case err != nil:
		return Config{}, fmt.Errorf("read configuration: %w", err)
	default:
		dec := yaml.NewDecoder(bytes.NewReader(data))
		dec.KnownFields(true)
		if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
			return Config{}, fmt.Errorf("read configuration %s: %w", path, err)
		}
		if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
			return Config{}, fmt.Errorf("read configuration %s: it holds more than one document", path)
		}
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		key, ours := strings.CutPrefix(name, EnvPrefix)
		if !ours || key == "CONFIG" { // which names the file itself
			continue
		}
		if err := c.set(strings.ToLower(key), value); err != nil {
			return Config{}, fmt.Errorf("read environment variable %s: %w", name, err)
		}
	}
	c.setDefaults()
	return c, c.validate(path)
}

func (c *Config) setDefaults() {
	def := func(value *string, fallback string) {
		if *value == "" {
			*value = fallback
		}
	}
	def(&c.StateDir, "/var/lib/certferry")
	def(&c.Policy, "/etc/certferry/policy.yaml")
	def(&c.LogLevel, "info")
	def(&c.LogFormat, "text")
	if c.PollInterval == 0 {
		c.PollInterval = time.Minute
	}
}

func (c *Config) validate(path string) error {
	fault := func(key, what string) error {
		return fmt.Errorf("check configuration %s: %s: %s", path, key, what)
	}
	var level slog.Level
	switch {
	case !filepath.IsAbs(c.StateDir):
		return fault("state_dir", "must be an absolute path")
	case !filepath.IsAbs(c.Policy):
		return fault("policy", "must be an absolute path")
	case c.PollInterval < 100*time.Millisecond || c.PollInterval > 24*time.Hour:
		return fault("poll_interval", "must lie between 100ms and 24h")
	case level.UnmarshalText([]byte(c.LogLevel)) != nil:
		return fault("log_level", "must be debug, info, warn or error")
	case c.LogFormat != "text" && c.LogFormat != "json":
		return fault("log_format", "must be text or json")
	}
	if err := checkRemotes(c.Remotes); err != nil {
		return fmt.Errorf("check configuration %s: %w", path, err)
	}
	return nil
}

// Logger returns the logger that the configuration asks for.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// checkURL accepts https everywhere and http on loopback, without credentials.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "":
		return errors.New("must be a URL such as https://hub.example.com")
	case u.User != nil:
		return errors.New("must not hold credentials")
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return errors.New("must start with https://")
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return errors.New("plain http is accepted on loopback only; use https")
}
