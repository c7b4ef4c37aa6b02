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
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/issuer/acmesh"
)

// EnvPrefix precedes the upper-case name of each key of the configuration in the environment. EnvConfig is the one
// variable with that prefix that is not a key: it names the file.
const (
	EnvPrefix = "CERTFERRY_HUB_"
	EnvConfig = EnvPrefix + "CONFIG"
)

// Config is the hub's configuration, /etc/certferry/hub.yaml. The zero value of each key is usable. Secrets never
// stand in it: they are files that it names.
type Config struct {
	// DataDir holds everything that the hub keeps; /var/lib/certferry-hub by default.
	DataDir string `yaml:"data_dir"`
	// Listen is the address of API, Git and console; 127.0.0.1:8600 by default.
	Listen string `yaml:"listen"`
	// PublicURL is the hub's address as agents and people reach it; made from Listen by default.
	PublicURL string `yaml:"public_url"`
	// TLSCert and TLSKey are PEM files with which the listener speaks TLS; they are read again when they change.
	TLSCert string `yaml:"tls_cert"`
	TLSKey  string `yaml:"tls_key"`
	// AllowPlainHTTP lets the listener speak plain HTTP beyond loopback, behind a proxy that speaks TLS.
	AllowPlainHTTP bool `yaml:"allow_plain_http"`
	// EmailDomain ends the addresses of commit authors; the host of PublicURL by default.
	EmailDomain string `yaml:"email_domain"`

	// SigningKey, EscrowKey and JWTKey are the hub's secret files, such as systemd credentials; below DataDir by
	// default.
	SigningKey string `yaml:"signing_key"`
	EscrowKey  string `yaml:"escrow_key"`
	JWTKey     string `yaml:"jwt_key"`
	// KeyPassphraseFile holds, on its first line, the passphrase of keys that certferry-hub key protect locked; asked on
	// the terminal by default.
	KeyPassphraseFile string `yaml:"key_passphrase_file"`

	// ACMEScript is the path of acme.sh; the one that certferry-hub acme install installed by default. Without it issuers
	// of the type acmesh fail and say so.
	ACMEScript string `yaml:"acme_script"`
	// ACMEUnpinned says that ACMEScript is of another version, such as a distribution's, whose files cannot be checked.
	ACMEUnpinned bool `yaml:"acme_unpinned"`
	// ACMECommandHooks are DNS hooks that run commands out of their credentials, and may be used all the same: who may
	// write credentials may then run what he likes on this machine. None by default.
	ACMECommandHooks []string `yaml:"acme_command_hooks"`
	// ACMEWebroots are folders below which the webroots of http-01 must lie; by default all but those of the system and of
	// the hub.
	ACMEWebroots []string `yaml:"acme_webroots"`
	// ACMEHooksDir holds further DNS hooks in its folder dnsapi, beside those that came with acme.sh.
	ACMEHooksDir string `yaml:"acme_hooks_dir"`
	// ACMEDirectories are the directory URLs that issuers may use; those of the CAs that acme.sh knows by name by default.
	ACMEDirectories []string `yaml:"acme_directories"`
	// ACMECABundle holds the PEM roots that ACME servers must chain to; the system's own by default.
	ACMECABundle string `yaml:"acme_ca_bundle"`
	// ACMEStandalonePort is where acme.sh listens for the method standalone; 80 by default.
	ACMEStandalonePort int `yaml:"acme_standalone_port"`
	// ACMETLSPort is where acme.sh listens for tls-alpn-01; 443 by default.
	ACMETLSPort int `yaml:"acme_tls_port"`
	// ACMEUser is the user that acme.sh runs as where the hub is root. Without one such a hub orders nothing by acme.sh;
	// "root" says that this is accepted.
	ACMEUser string `yaml:"acme_user"`
	// ACMEWorkDir holds the throw-away folders of orders; below DataDir by default, which a user of acme.sh's own cannot
	// reach.
	ACMEWorkDir string `yaml:"acme_work_dir"`
	// ACMEDNSWait is how long DNS records are given at most until the servers of their zone show them; 2m by default.
	ACMEDNSWait time.Duration `yaml:"acme_dns_wait"`
	// ACMEDNSBlind waits for ACMEDNSWait without asking the servers of the zone, where the hub cannot ask them.
	ACMEDNSBlind bool `yaml:"acme_dns_blind"`
	// ACMEPreflight says what the checks before an order do: enforce keeps orders back that would fail, report only tells,
	// for a hub that cannot see what the CA sees, off does not check; enforce by default.
	ACMEPreflight string `yaml:"acme_preflight"`
	// CredentialsDir holds <name>.env files of DNS hooks, KEY=value lines, mode 0600; below DataDir by default.
	CredentialsDir string `yaml:"credentials_dir"`

	// Review says who must agree before an issued certificate goes to servers: none, required or two-person; none by
	// default. A certificate may say otherwise.
	Review string `yaml:"review"`
	// RolloutWaves are the steps in which a new issue goes to its servers: numbers of servers, or shares such as 10%; 1
	// and 10% by default, 100% for all at once. A certificate may say otherwise.
	RolloutWaves []string `yaml:"rollout_waves"`
	// RolloutSoak is how long a wave must have stood before the next begins; nothing by default.
	RolloutSoak time.Duration `yaml:"rollout_soak"`
	// RolloutWaveTimeout is how long the servers of a wave have to report before a person is asked to look; 1h by default.
	RolloutWaveTimeout time.Duration `yaml:"rollout_wave_timeout"`
	// AllowUnsignedIntent lets commits on remotes count that no operator signed. Otherwise each needs the signature of a
	// key in the folder operators below DataDir.
	AllowUnsignedIntent bool `yaml:"allow_unsigned_intent"`

	// Remotes are copies of the repository on other Git hosts, which the hub keeps up to date; file only.
	Remotes []RemoteConfig `yaml:"remotes"`

	// Workers is how many certificates are ordered at once; 8 by default. IssuerWorkers is how many of them at one issuer;
	// 4 by default.
	Workers       int `yaml:"workers"`
	IssuerWorkers int `yaml:"issuer_workers"`
	// ReconcileInterval is the longest time between two passes of the reconcile loop; 10s by default.
	ReconcileInterval time.Duration `yaml:"reconcile_interval"`
	// HeartbeatInterval is what agents are told; 60s by default.
	HeartbeatInterval time.Duration `yaml:"heartbeat_interval"`
	// StoreKeep is how long the history of servers' branches is kept at least; 2160h by default, 0 for ever.
	StoreKeep time.Duration `yaml:"store_keep"`
	// LogLevel is debug, info, warn or error; info by default. LogFormat is text or json; text by default.
	LogLevel  string `yaml:"log_level"`
	LogFormat string `yaml:"log_format"`

	// Passphrase is asked where keys are locked and KeyPassphraseFile is not set; nil where there is nobody to ask.
	Passphrase func() ([]byte, error) `yaml:"-"`
	// SystemdCredentials is the folder of the unit's credentials, which ${CREDENTIALS_DIRECTORY} stands for in paths.
	SystemdCredentials string `yaml:"-"`
}

// LoadConfig reads the file at path, then the environment, whose variables win. A missing file is an error only
// when required is set. Faults name the line and the key.
func LoadConfig(path string, required bool, environ []string) (Config, error) {
	c := Config{StoreKeep: defaultStoreKeep} // here, as 0 means something
	data, err := os.ReadFile(path)           //nolint:gosec // the path is the administrator's
	switch {
	case errors.Is(err, fs.ErrNotExist) && !required:
	case err != nil:
		return Config{}, fmt.Errorf("read configuration: %w", err)
	default:
		if err := decodeStrict(data, &c); err != nil {
			return Config{}, fmt.Errorf("read configuration %s: %w", path, err)
		}
	}
	if err := c.setEnv(environ); err != nil {
		return Config{}, err
	}
	if err := c.expandCredentials(environ); err != nil {
		return Config{}, fmt.Errorf("check configuration %s: %w", path, err)
	}
	if err := c.Complete(); err != nil {
		return Config{}, fmt.Errorf("check configuration %s: %w", path, err)
	}
	return c, nil
}

var unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`)

// decodeStrict decodes one YAML document and refuses unknown keys.
func decodeStrict(data []byte, c *Config) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var te *yaml.TypeError
	switch err := dec.Decode(c); {
	case errors.Is(err, io.EOF): // an empty file: all defaults
		return nil
	case errors.As(err, &te):
		faults := make([]string, len(te.Errors))
		for i, text := range te.Errors {
			faults[i] = unknownKey.ReplaceAllString(text, `unknown key "$1" (certferry-hub config keys lists them)`)
		}
		return errors.New(strings.Join(faults, "; "))
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("it holds more than one document")
	}
	return nil
}

// Keys lists the keys of the configuration in the order of their documentation.
func Keys() []string {
	var keys []string
	for field := range reflect.TypeFor[Config]().Fields() {
		if key := field.Tag.Get("yaml"); key != "-" { // those stand at the end
			keys = append(keys, key)
		}
	}
	return keys
}

func (c *Config) setEnv(environ []string) error {
	keys := Keys()
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		key, ours := strings.CutPrefix(name, EnvPrefix)
		if !ours || name == EnvConfig {
			continue
		}
		i := slices.Index(keys, strings.ToLower(key))
		if i < 0 || key != strings.ToUpper(key) {
			return fmt.Errorf("read environment variable %s: it is no key of the configuration (certferry-hub config keys lists them)", name)
		}
		if err := setField(reflect.ValueOf(c).Elem().Field(i), value); err != nil {
			return fmt.Errorf("read environment variable %s: %w", name, err)
		}
	}
	return nil
}

// setField gives a field the value of an environment variable; lists are separated by commas.
func setField(field reflect.Value, value string) error {
	switch field.Interface().(type) {
	case []RemoteConfig:
		return errors.New("it is a list of settings: write it into the file")
	case string:
		field.SetString(value)
	case []string:
		field.Set(reflect.ValueOf(strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })))
	case bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return errors.New("must be true or false")
		}
		field.SetBool(b)
	case time.Duration:
		d, err := time.ParseDuration(value)
		if err != nil {
			return errors.New("must be a duration such as 60s")
		}
		field.SetInt(int64(d))
	case int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return errors.New("must be a whole number")
		}
		field.SetInt(int64(n))
	}
	return nil
}

// Complete puts defaults where nothing is set and checks the whole. A fault names its key.
func (c *Config) Complete() error {
	c.setDefaults()
	return errors.Join(c.checkPaths(), c.checkListener(), c.checkNumbers(), checkRemotes(c.Remotes))
}

func (c *Config) setDefaults() {
	str := func(value *string, fallback string) {
		if *value == "" {
			*value = fallback
		}
	}
	str(&c.DataDir, "/var/lib/certferry-hub")
	str(&c.Listen, "127.0.0.1:8600")
	if c.PublicURL == "" {
		scheme := "http"
		if c.TLSCert != "" {
			scheme = "https"
		}
		c.PublicURL = scheme + "://" + c.Listen
	}
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	if u, err := url.Parse(c.PublicURL); err == nil {
		str(&c.EmailDomain, u.Hostname())
	}
	str(&c.SigningKey, filepath.Join(c.DataDir, "keys", "signing.key"))
	str(&c.EscrowKey, filepath.Join(c.DataDir, "keys", "escrow.key"))
	str(&c.JWTKey, filepath.Join(c.DataDir, "jwt.key"))
	str(&c.CredentialsDir, filepath.Join(c.DataDir, "credentials"))
	str(&c.ACMEScript, installedACME())
	if len(c.ACMEDirectories) == 0 {
		for _, ca := range acmesh.KnownCAs() {
			c.ACMEDirectories = append(c.ACMEDirectories, ca.Directory)
		}
	}
	str(&c.ACMEWorkDir, filepath.Join(c.paths().acme(), "work"))
	num := func(value *int, fallback int) {
		if *value == 0 {
			*value = fallback
		}
	}
	num(&c.ACMEStandalonePort, 80)
	num(&c.ACMETLSPort, 443)
	num(&c.Workers, 8)
	num(&c.IssuerWorkers, 4)
	if c.ACMEDNSWait == 0 {
		c.ACMEDNSWait = 2 * time.Minute
	}
	if c.ReconcileInterval == 0 {
		c.ReconcileInterval = 10 * time.Second
	}
	str(&c.ACMEPreflight, preflightEnforce)
	str(&c.Review, manifest.ReviewNone)
	if c.RolloutWaveTimeout == 0 {
		c.RolloutWaveTimeout = time.Hour
	}
	if c.RolloutWaves == nil {
		for _, w := range manifest.DefaultWaves() {
			c.RolloutWaves = append(c.RolloutWaves, w.String())
		}
	}
	if c.HeartbeatInterval == 0 {
		c.HeartbeatInterval = time.Minute
	}
	str(&c.LogLevel, "info")
	str(&c.LogFormat, "text")
}

func fault(key, what string) error { return fmt.Errorf("%s: %s", key, what) }

func (c *Config) checkPaths() error {
	var faults []error
	for _, p := range []struct{ key, value string }{
		{"data_dir", c.DataDir},
		{"tls_cert", c.TLSCert},
		{"tls_key", c.TLSKey},
		{"signing_key", c.SigningKey},
		{"escrow_key", c.EscrowKey},
		{"jwt_key", c.JWTKey},
		{"key_passphrase_file", c.KeyPassphraseFile},
		{"acme_script", c.ACMEScript},
		{"acme_hooks_dir", c.ACMEHooksDir},
		{"acme_ca_bundle", c.ACMECABundle},
		{"acme_work_dir", c.ACMEWorkDir},
		{"credentials_dir", c.CredentialsDir},
	} {
		if p.value != "" && !filepath.IsAbs(p.value) {
			faults = append(faults, fault(p.key, "must be an absolute path"))
		}
	}
	return errors.Join(faults...)
}

func (c *Config) checkListener() error {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil || !validPort(port) {
		return fault("listen", "must be an address and a port such as 127.0.0.1:8600")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return fault("tls_cert", "goes together with tls_key: set both or none")
	}
	if c.TLSCert == "" && !c.AllowPlainHTTP && !isLoopback(host) {
		return fault("listen", "plain HTTP is spoken on loopback only: set tls_cert and tls_key, or allow_plain_http behind a proxy that speaks TLS")
	}
	u, err := url.Parse(c.PublicURL)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return fault("public_url", "must be a URL such as https://hub.example.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "":
		return fault("public_url", "must be scheme, host and port only")
	case u.Scheme == "http" && !isLoopback(u.Hostname()) && !c.AllowPlainHTTP:
		return fault("public_url", "must start with https:// beyond loopback")
	}
	return nil
}

func validPort(port string) bool {
	n, err := strconv.Atoi(port)
	return err == nil && n >= 0 && n <= 65535
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *Config) checkDirectories() (faults []error) {
	for i, d := range c.ACMEDirectories {
		if u, err := url.Parse(d); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			faults = append(faults, fault("acme_directories["+strconv.Itoa(i)+"]", "must be an https:// URL"))
		}
	}
	return faults
}

func (c *Config) checkNumbers() error {
	var level slog.Level
	faults := c.checkDirectories()
	for i, text := range c.RolloutWaves {
		if _, err := manifest.ParseWave(text); err != nil {
			faults = append(faults, fault("rollout_waves["+strconv.Itoa(i)+"]", err.Error()))
		}
	}
	for _, check := range []struct {
		ok        bool
		key, what string
	}{
		{c.Workers >= 1 && c.Workers <= 64, "workers", "must lie between 1 and 64"},
		{c.IssuerWorkers >= 1 && c.IssuerWorkers <= 64, "issuer_workers", "must lie between 1 and 64"},
		{c.ACMETLSPort >= 1 && c.ACMETLSPort <= 65535, "acme_tls_port", "must be a port"},
		{c.ACMEStandalonePort >= 1 && c.ACMEStandalonePort <= 65535, "acme_standalone_port", "must be a port"},
		{c.ACMEDNSWait > 0 && c.ACMEDNSWait <= time.Hour, "acme_dns_wait", "must be at most 1h"},
		{slices.Contains([]string{preflightEnforce, preflightReport, preflightOff}, c.ACMEPreflight), "acme_preflight", "must be enforce, report or off"},
		{c.ReconcileInterval >= 100*time.Millisecond && c.ReconcileInterval <= time.Hour, "reconcile_interval", "must lie between 100ms and 1h"},
		{c.HeartbeatInterval >= time.Second && c.HeartbeatInterval <= time.Hour, "heartbeat_interval", "must lie between 1s and 1h"},
		{slices.Contains([]string{manifest.ReviewNone, manifest.ReviewRequired, manifest.ReviewTwoPerson}, c.Review), "review", "must be none, required or two-person"},
		{c.RolloutSoak >= 0 && c.RolloutSoak <= 30*24*time.Hour, "rollout_soak", "must be at most 720h"},
		{c.RolloutWaveTimeout >= time.Second && c.RolloutWaveTimeout <= 30*24*time.Hour, "rollout_wave_timeout", "must lie between 1s and 720h"},
		{c.StoreKeep == 0 || c.StoreKeep >= 24*time.Hour, "store_keep", "must be at least 24h, or 0 to keep everything"},
		{level.UnmarshalText([]byte(c.LogLevel)) == nil, "log_level", "must be debug, info, warn or error"},
		{c.LogFormat == "text" || c.LogFormat == "json", "log_format", "must be text or json"},
	} {
		if !check.ok {
			faults = append(faults, fault(check.key, check.what))
		}
	}
	return errors.Join(faults...)
}

// waves are RolloutWaves, which were checked.
func (c *Config) waves() manifest.Waves {
	var all manifest.Waves
	for _, text := range c.RolloutWaves {
		if w, err := manifest.ParseWave(text); err == nil {
			all = append(all, w)
		}
	}
	return all
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

// Values lists what is in force, by key. The configuration holds no secrets, only where they are.
func (c *Config) Values() map[string]any {
	values := map[string]any{}
	fields := reflect.ValueOf(*c)
	for i, key := range Keys() {
		value := fields.Field(i).Interface()
		if d, ok := value.(time.Duration); ok {
			value = d.String()
		}
		values[key] = value
	}
	return values
}
