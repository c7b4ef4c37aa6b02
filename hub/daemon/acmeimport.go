package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/vault"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/acmesh/acmehome"
	"github.com/certferry/certferry/issuer/acmesh/dnshook"
)

// ACMEImport tells what was taken over from a folder of acme.sh, by the names that it has here.
type ACMEImport struct {
	Accounts     []string `json:"accounts" yaml:"accounts"`
	Issuers      []string `json:"issuers" yaml:"issuers"`
	Credentials  []string `json:"credentials" yaml:"credentials"`
	Certificates []string `json:"certificates" yaml:"certificates"`
	// Left says what was not, and why, one sentence each.
	Left []string `json:"left" yaml:"left"`
}

// ImportACME takes over accounts, credentials of DNS hooks and certificates with what was issued for them, while the hub
// is stopped. What is here already stays as it is, so that it can be run again. A dry run only tells.
func ImportACME(ctx context.Context, cfg Config, now func() time.Time, dir string, dry bool) (report ACMEImport, err error) {
	if err := cfg.Complete(); err != nil {
		return report, fmt.Errorf("check configuration: %w", err)
	}
	home, err := acmehome.Read(dir)
	if err != nil {
		return report, err
	}
	k, err := loadKeys(&cfg, now())
	if err != nil {
		return report, err
	}
	held, err := takeLock(cfg.paths())
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	h := &Hub{cfg: cfg}
	h.opt.Now = now
	if h.store, err = openStore(&h.cfg, k, now, nil); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, h.store.Close()) }()
	if h.db, err = database.Open(ctx, cfg.paths().database(), now); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, h.db.Close()) }()
	snapshot, err := h.store.Snapshot()
	if err != nil {
		return report, err
	}
	m := &acmeImport{
		hub: h, home: home, dir: dir, dry: dry, snapshot: snapshot, issuers: map[string]string{}, credentials: map[string]bool{},
		report: ACMEImport{Accounts: []string{}, Issuers: []string{}, Credentials: []string{}, Certificates: []string{}, Left: append([]string{}, home.Left...)},
	}
	m.accounts()
	for i := range home.Certificates {
		if err := m.certificate(ctx, &home.Certificates[i]); err != nil {
			return m.report, err
		}
	}
	return m.report, nil
}

type acmeImport struct {
	hub      *Hub
	home     *acmehome.Home
	dir      string
	dry      bool
	snapshot *gitstore.Snapshot
	report   ACMEImport
	// issuers are names by directory, credentials the names that were seen to.
	issuers     map[string]string
	credentials map[string]bool
}

func (m *acmeImport) left(format string, args ...any) {
	m.report.Left = append(m.report.Left, fmt.Sprintf(format, args...))
}

// accounts takes over the accounts of CAs that the configuration allows.
func (m *acmeImport) accounts() {
	for _, a := range m.home.Accounts {
		if !slices.Contains(m.hub.cfg.ACMEDirectories, a.Directory) {
			m.left("account at %s: the configuration does not allow this CA: add it to acme_directories", a.Directory)
			continue
		}
		err := m.account(&a)
		if errors.Is(err, fs.ErrExist) {
			m.left("account at %s: the hub has one there already", a.Directory)
			continue
		}
		if err != nil {
			m.left("account at %s: %v", a.Directory, err)
			continue
		}
		m.report.Accounts = append(m.report.Accounts, a.Directory)
	}
}

// account takes over one. A dry run answers what the real one would.
func (m *acmeImport) account(a *acmehome.Account) error {
	dir := filepath.Join(m.hub.cfg.paths().acme(), "accounts")
	if !m.dry {
		return acmesh.ImportAccount(dir, a.Directory, a.URL, a.Key)
	}
	if _, err := bundle.ParseKey(a.Key); err != nil {
		return fmt.Errorf("import ACME account: %w", err)
	}
	if acmesh.HasAccount(dir, a.Directory) || slices.Contains(m.report.Accounts, a.Directory) {
		return fs.ErrExist
	}
	return nil
}

// certificate takes over one with its issuer, its credentials and what was issued, in one commit.
func (m *acmeImport) certificate(ctx context.Context, c *acmehome.Certificate) error {
	wish, issued, err := m.wish(c)
	if err != nil {
		m.left("certificate %s: %v", c.Folder, err)
		return nil
	}
	if _, taken := m.snapshot.Certificates[wish.Name]; taken {
		m.left("certificate %s: there is a certificate %s already", c.Folder, wish.Name)
		return nil
	}
	made, err := m.issuerOf(c, wish)
	if err != nil {
		m.left("certificate %s: %v", c.Folder, err)
		return nil
	}
	data, err := wish.Encode()
	if err != nil {
		m.left("certificate %s: %v", c.Folder, err)
		return nil
	}
	edits := []gitrepo.Edit{{Path: manifest.CertificatePath(wish.Name), Data: data}}
	if made != nil { // only now: its file comes with that of a certificate
		if data, err = made.Encode(); err != nil {
			m.left("certificate %s: %v", c.Folder, err)
			return nil
		}
		edits = append(edits, gitrepo.Edit{Path: manifest.IssuerPath(made.Name), Data: data})
		m.snapshot.Issuers[made.Name] = made
		m.report.Issuers = append(m.report.Issuers, made.Name)
	}
	for _, ch := range append([]manifest.NamedChallenge{{Challenge: *wish.Challenge}}, wish.Challenges...) {
		m.credential(ctx, ch.Hook, ch.Credential)
	}
	m.report.Certificates = append(m.report.Certificates, wish.Name)
	m.snapshot.Certificates[wish.Name] = wish
	m.commands(c)
	if m.dry {
		return nil
	}
	_, err = m.hub.store.PutIssued(ctx, gitstore.Issue{
		Certificate: wish.Name, Bundle: issued, Issued: manifest.IssuedCertificate{Issuer: wish.Issuer, KeyType: wish.KeyType},
		Change: gitstore.Change{
			Subject: "import certificate " + wish.Name, Body: "It was issued by acme.sh before.",
			Edits: edits,
			BeforeRef: func(commit string) error {
				return m.hub.db.Audit(ctx, hub.AuditEvent{
					At: m.hub.opt.Now(), Actor: localActor.Name, Action: "import-certificate", Object: wish.Name, Outcome: hub.OutcomeOK, Detail: "commit " + commit,
				})
			},
		},
	})
	return err
}

// commands tells which commands acme.sh ran for a certificate. The hub runs none, and does not repeat them, as they may
// hold secrets: what servers do with a certificate stands in their own policies.
func (m *acmeImport) commands(c *acmehome.Certificate) {
	const (
		onServer = "name the files, the software and its reload in the policy of the agent (/etc/certferry/policy.yaml) on each server that gets it"
		onHub    = "the hub runs none: choose a challenge that needs none, such as webroot, stateless or DNS"
	)
	conf, err := m.conf(c)
	if err != nil {
		m.left("commands of certificate %s: its configuration cannot be read again: look there for hooks and reload commands", c.Folder)
		return
	}
	for _, command := range []struct{ key, what, instead string }{
		{"Le_ReloadCmd", "the reload command", onServer},
		{"Le_DeployHook", "the deploy hook", onServer},
		{"Le_RenewHook", "the command after a renewal (--renew-hook)", onServer},
		{"Le_PreHook", "the command before an order (--pre-hook)", onHub},
		{"Le_PostHook", "the command after an order (--post-hook)", onHub},
	} {
		if conf[command.key] != "" {
			m.left("%s of certificate %s (%s in %s.conf): %s", command.what, c.Folder, command.key, domainOf(c), command.instead)
		}
	}
}

// conf is what acme.sh keeps of a certificate, by its own names.
func (m *acmeImport) conf(c *acmehome.Certificate) (map[string]string, error) {
	root, err := os.OpenRoot(m.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	data, err := root.ReadFile(filepath.Join(c.Folder, domainOf(c)+".conf"))
	if err != nil {
		return nil, err
	}
	return acmehome.Parse(string(data))
}

// domainOf is the name by which acme.sh calls a certificate.
func domainOf(c *acmehome.Certificate) string { return strings.TrimSuffix(c.Folder, "_ecc") }

// wish is what acme.sh did for a certificate, in the hub's words.
func (m *acmeImport) wish(c *acmehome.Certificate) (*manifest.Certificate, *bundle.Bundle, error) {
	issued, err := bundle.Parse(c.Chain, c.Key)
	if err != nil {
		return nil, nil, err
	}
	if issued.Key == nil {
		return nil, nil, errors.New("its private key is not there")
	}
	wish := &manifest.Certificate{
		Name: m.nameOf(c), KeyType: string(bundle.TypeOf(issued.Key.Public())), PreferredChain: c.PreferredChain, Profile: c.Profile,
	}
	for n, name := range c.Names {
		name = strings.ToLower(name)
		wish.Names = append(wish.Names, name)
		challenge, err := challengeOf(c.Places[n], c.Aliases[n])
		if err != nil {
			return nil, nil, fmt.Errorf("%s %w", name, err)
		}
		switch at := slices.IndexFunc(wish.Challenges, func(o manifest.NamedChallenge) bool { return o.Challenge == challenge }); {
		case n == 0:
			wish.Challenge = &challenge
		case challenge == *wish.Challenge:
		case at >= 0:
			wish.Challenges[at].Names = append(wish.Challenges[at].Names, name)
		default:
			wish.Challenges = append(wish.Challenges, manifest.NamedChallenge{Names: []string{name}, Challenge: challenge})
		}
	}
	return wish, issued, nil
}

// nameOf is the certificate's name here. Of an ECDSA and an RSA certificate of the same names, the second is called so.
func (m *acmeImport) nameOf(c *acmehome.Certificate) string {
	name := strings.Replace(strings.ToLower(domainOf(c)), "*.", "wildcard.", 1)
	twin := func(o acmehome.Certificate) bool { return o.Folder == c.Folder+"_ecc" }
	if slices.ContainsFunc(m.home.Certificates, twin) {
		name += "-rsa"
	}
	return name
}

// challengeOf says in the hub's words how a name is proven.
func challengeOf(place, alias string) (manifest.Challenge, error) {
	c := manifest.Challenge{Type: "http-01"}
	switch {
	case place == "no":
		c.Method = "standalone"
	case place == "stateless":
		c.Method = place
	case place == "alpn":
		c.Type = "tls-alpn-01"
	case strings.HasPrefix(place, "/"):
		c.Method, c.Webroot = "webroot", place
	case strings.HasPrefix(place, "dns_"):
		c.Type, c.Hook, c.Credential = "dns-01", place, strings.ReplaceAll(place, "_", "-")
		if whole, ok := strings.CutPrefix(alias, "="); ok {
			c.DomainAlias = whole
		} else {
			c.Alias = alias
		}
	default:
		return c, fmt.Errorf("is proven in a way that the hub does not know (%q): make the certificate anew, with webroot, stateless or DNS", place)
	}
	return c, nil
}

// issuerOf finds the issuer of a certificate, or answers one that is to be made.
func (m *acmeImport) issuerOf(c *acmehome.Certificate, wish *manifest.Certificate) (made *manifest.Issuer, err error) {
	if !slices.Contains(m.hub.cfg.ACMEDirectories, c.Directory) {
		return nil, fmt.Errorf("the configuration does not allow its CA: add %q to acme_directories", c.Directory)
	}
	for name, have := range m.snapshot.Issuers {
		if have.ACME != nil && have.ACME.Directory == c.Directory && (wish.Issuer == "" || name < wish.Issuer) {
			wish.Issuer = name
		}
	}
	if wish.Issuer != "" {
		return nil, nil
	}
	made = &manifest.Issuer{Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: c.Directory}}
	if known, ok := acmesh.CAOf(c.Directory); ok {
		made.Name = strings.ReplaceAll(known.ID, "_", "-")
	}
	for n := 2; m.snapshot.Issuers[made.Name] != nil; n++ {
		made.Name = fmt.Sprintf("acme-%d", n)
	}
	for _, a := range m.home.Accounts {
		if a.Directory == c.Directory {
			made.ACME.Email = a.Email
		}
	}
	wish.Issuer = made.Name
	return made, nil
}

// credential keeps the variables that acme.sh saved for a hook.
func (m *acmeImport) credential(ctx context.Context, hook, name string) {
	if hook == "" || m.credentials[name] {
		return
	}
	m.credentials[name] = true
	byHand := "add it: certferry credential add " + name + " --provider " + hook
	dirs := []string{m.dir, m.hub.cfg.ACMEHooksDir}
	if m.hub.cfg.ACMEScript != "" {
		dirs = slices.Insert(dirs, 0, filepath.Dir(m.hub.cfg.ACMEScript))
	}
	described, err := dnshook.Read(hook, dirs...)
	if err != nil {
		m.left("credential %s: acme.sh has no hook %s: %s", name, hook, byHand)
		return
	}
	values := map[string]string{}
	for _, variable := range described.Variables() {
		if value := m.home.Saved[variable]; value != "" {
			values[variable] = value
		}
	}
	if len(values) == 0 {
		m.left("credential %s: account.conf saves nothing of it: %s", name, byHand)
		return
	}
	err = m.keep(ctx, hook, name, values)
	if errors.Is(err, hub.ErrConflict) {
		m.left("credential %s: there is one of this name already", name)
		return
	}
	if fault := new(hub.Error); errors.As(err, &fault) && len(fault.Faults) > 0 {
		err = errors.New(fault.Faults[0].Location + " " + fault.Faults[0].Message)
	}
	if err != nil {
		m.left("credential %s: %v: %s", name, err, byHand)
		return
	}
	m.report.Credentials = append(m.report.Credentials, name)
}

// keep puts a credential into the vault. A dry run answers what the real one would.
func (m *acmeImport) keep(ctx context.Context, hook, name string, values map[string]string) error {
	cfg := m.hub.vaultConfig(newIssuers(&m.hub.cfg, m.hub.opt.Now, nil))
	if m.dry {
		cfg.Store = dryCredentials{cfg.Store}
	}
	at := m.hub.opt.Now()
	return vault.New(cfg).Put(ctx, hub.Credential{Name: name, Provider: hook, CreatedBy: localActor.Name, CreatedAt: at, UpdatedAt: at}, values, true,
		hub.AuditEvent{At: at, Actor: localActor.Name, Action: "import-credential", Object: name, Outcome: hub.OutcomeOK})
}

// dryCredentials is a store of credentials that only says whether there is one of the name.
type dryCredentials struct{ vault.Store }

// PutCredential implements vault.Store.
func (s dryCredentials) PutCredential(ctx context.Context, c hub.Credential, _ bool, _ hub.AuditEvent) error {
	_, err := s.Credential(ctx, c.Name)
	switch {
	case err == nil:
		return hub.ErrConflict
	case errors.Is(err, hub.ErrNotFound):
		return nil
	}
	return err
}
