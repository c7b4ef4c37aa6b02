package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/user"
	"path/filepath"

	"github.com/certferry/certferry/issuer/acmesh/distribution"
)

// acmePlace is where acme.sh is installed to, and looked for where acme_script is not set: the hub's own user can read
// it and not change it.
const acmePlace = "/usr/local/lib/certferry/acme.sh"

// installedACME is the script at acmePlace, empty where there is none.
func installedACME() string {
	script := filepath.Join(acmePlace, distribution.Script)
	if info, err := os.Stat(script); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return script
}

// verifyACME holds files of acme.sh against their published sums, all where none is named. It is nil where the
// administrator's copy is of another version.
func (c *Config) verifyACME() func(files ...string) error {
	if c.ACMEUnpinned || c.ACMEScript == "" {
		return nil
	}
	dir := filepath.Dir(c.ACMEScript)
	sums := distribution.Published()
	return func(files ...string) error {
		if name := filepath.Base(c.ACMEScript); name != "acme.sh" {
			return fmt.Errorf("%s is not the name under which acme.sh is published", name)
		}
		return sums.Verify(dir, files...)
	}
}

// Integrity says what is known of the files of acme.sh.
type Integrity string

// What is known of them.
const (
	IntegrityPublished Integrity = "published" // each is as at the pinned commit
	IntegrityChanged   Integrity = "changed"
	IntegrityUnpinned  Integrity = "unpinned" // another version, which the administrator answers for
	IntegrityAbsent    Integrity = "absent"
)

// ACMEStatus tells of acme.sh on this machine.
type ACMEStatus struct {
	// Script is its path; empty where none is set and none is installed.
	Script  string `json:"script,omitempty" yaml:"script,omitempty"`
	Version string `json:"version,omitempty" yaml:"version,omitempty"`
	// Pinned is the commit that its files are held against.
	Pinned    string    `json:"pinned,omitempty" yaml:"pinned,omitempty"`
	Integrity Integrity `json:"integrity" yaml:"integrity"`
	// User is the one that it runs as; empty for the hub's own.
	User string `json:"user,omitempty" yaml:"user,omitempty"`
	// Faults keep orders from being made; each says what to do.
	Faults []string `json:"faults" yaml:"faults"`
}

// StatusOfACME looks at acme.sh, and at what it needs. Only a configuration that cannot be read is an error.
func StatusOfACME(cfg Config) (ACMEStatus, error) {
	if err := cfg.Complete(); err != nil {
		return ACMEStatus{}, fmt.Errorf("check configuration: %w", err)
	}
	s := ACMEStatus{Script: cfg.ACMEScript, User: cfg.ACMEUser, Integrity: IntegrityAbsent, Faults: []string{}}
	if s.Script == "" {
		s.Faults = append(s.Faults, "acme.sh is not installed: run certferry-hub acme install, or set acme_script to a copy")
		return s, nil
	}
	version, err := distribution.Version(s.Script)
	if err != nil {
		s.Faults = append(s.Faults, "acme.sh cannot be read at "+s.Script+": run certferry-hub acme install, or set acme_script right")
		return s, nil //nolint:nilerr // the status tells it
	}
	s.Version, s.Integrity = version, IntegrityUnpinned
	if verify := cfg.verifyACME(); verify != nil {
		s.Pinned, s.Integrity = distribution.Commit, IntegrityPublished
		if err := verify(); err != nil {
			s.Integrity = IntegrityChanged
			s.Faults = append(s.Faults, err.Error()+": run certferry-hub acme install, or set acme_unpinned for a version of your own")
		}
	}
	s.Faults = append(s.Faults, cfg.needsOfACME()...)
	return s, nil
}

// acmeWantsUser is told to an administrator whose hub is root.
const acmeWantsUser = "acme.sh must not run as root: make a user for it (useradd --system --shell /usr/sbin/nologin certferry-acme) and set acme_user, or run the hub as a user of its own"

// acmeNeedsUser says that the hub is root and nobody said whom acme.sh runs as.
func (c *Config) acmeNeedsUser() bool { return os.Geteuid() == 0 && c.ACMEUser == "" }

// needsOfACME says what acme.sh lacks on this machine.
func (c *Config) needsOfACME() []string {
	var faults []string
	for _, need := range []string{"curl", "openssl"} {
		if !hasProgram(need) {
			faults = append(faults, "install "+need+": acme.sh runs it")
		}
	}
	if c.acmeNeedsUser() {
		faults = append(faults, acmeWantsUser)
	}
	if c.ACMEUser != "" {
		if _, err := user.Lookup(c.ACMEUser); err != nil {
			faults = append(faults, "make the user "+c.ACMEUser+" (useradd --system): acme_user names it")
		}
	}
	return faults
}

// hasProgram looks where acme.sh is let look.
func hasProgram(name string) bool {
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

// InstallACME puts acme.sh of the pinned commit to a folder: to, else the one of acme_script, else the usual place. It
// downloads the archive where none is given, and returns the script's path.
func InstallACME(ctx context.Context, cfg Config, archive io.Reader, to string) (script string, err error) {
	if err := cfg.Complete(); err != nil {
		return "", fmt.Errorf("check configuration: %w", err)
	}
	if to == "" {
		to = acmePlace
		if cfg.ACMEScript != "" {
			to = filepath.Dir(cfg.ACMEScript)
		}
	}
	if to, err = filepath.Abs(to); err != nil {
		return "", fmt.Errorf("install acme.sh: %w", err)
	}
	if archive == nil {
		download, err := distribution.Download(ctx, http.DefaultClient, distribution.URL)
		if err != nil {
			return "", err
		}
		defer func() { _ = download.Close() }()
		archive = download
	}
	err = distribution.Published().Install(archive, to)
	if errors.Is(err, fs.ErrPermission) {
		return "", fmt.Errorf("%w: run it as root, or name a folder with --to DIR", err)
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(to, distribution.Script), nil
}
