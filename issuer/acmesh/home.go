// This file makes the throw-away home of one run, in the form in which acme.sh would have left it after an earlier
// order, so that one command line serves for a first issue and for a renewal.

package acmesh

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
)

const (
	// maxLog bounds what is read of acme.sh's log, in bytes.
	maxLog = 8 << 20
	// maxFile bounds every other file that acme.sh or a hook may have written.
	maxFile = 1 << 20
	acmeURN = "urn:ietf:params:acme:error:"
	// wrapperSlack is how much longer than this program the hook waits for it.
	wrapperSlack = 10 * time.Second
)

// home is the folder of one run.
type home struct {
	dir string
	// root is dir: acme.sh may be a user of its own, and what it lays there must not lead us elsewhere.
	root    *os.Root
	cert    string
	orderID string
	// credentials are the variables of the order's hooks, credentialNames what the hub calls them.
	credentials     map[string]string
	credentialNames []string
	// mask hides the credentials in what is told.
	mask *strings.Replacer
	// hooks make the order's records.
	hooks []hookOf
	// lastRecord is the name of the record that is made last, empty for none.
	lastRecord string
	// wait is how long the last record's hook waits at most.
	wait time.Duration
	// do is what records.sh does.
	do string
	// ca is how the URLs of the CA begin, curl the real one; see guard.
	ca, curl string
	// bundle is the file of the roots that are trusted, empty for the system's.
	bundle string
	// proxy is what curl is told of proxies, and secrets are hidden as credentials are.
	proxy, secrets []string
}

func openFolder(dir string) (*home, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &home{dir: dir, root: root, credentials: map[string]string{}, mask: strings.NewReplacer()}, nil
}

// newFolder makes an empty home.
func (i *Issuer) newFolder(orderID string) (*home, error) {
	if err := claim(i.cfg.WorkDir); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(i.cfg.WorkDir, orderID+"-") // made with mode 0700
	if err != nil {
		return nil, err
	}
	h, err := openFolder(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	h.orderID, h.wait = orderID, i.cfg.DNSWait
	for _, sub := range []string{"tmp", "dnsapi"} {
		if err := h.root.Mkdir(sub, 0o700); err != nil {
			return nil, errors.Join(err, h.remove())
		}
	}
	if err := h.equip(i); err != nil {
		return nil, errors.Join(err, h.remove())
	}
	return h, nil
}

// equip lays out what acme.sh asks the network with.
func (h *home) equip(i *Issuer) error {
	h.proxy, h.secrets = i.cfg.proxyEnvironment(), i.cfg.proxySecrets()
	return errors.Join(h.guard(i.cfg.Directory), h.trust(&i.cfg))
}

// newHome makes the folder with everything that acme.sh reads.
func (i *Issuer) newHome(req *issuer.Request, a *account) (*home, error) {
	u, err := url.Parse(i.cfg.Directory)
	if err != nil {
		return nil, err
	}
	h, err := i.newFolder(req.ID)
	if err != nil {
		return nil, err
	}
	main := req.Names[0]
	account := filepath.Join("ca", u.Hostname(), filepath.FromSlash(strings.TrimPrefix(u.Path, "/")))
	h.cert = filepath.Join("certs", main+"_ecc")
	digest := sha256.Sum256(a.keyPEM)
	files := map[string]string{
		filepath.Join(account, "account.key"): string(a.keyPEM),
		filepath.Join(account, "ca.conf"): assign("ACCOUNT_URL", a.URL) +
			assign("CA_KEY_HASH", base64.StdEncoding.EncodeToString(digest[:])),
		filepath.Join(h.cert, main+".conf"): i.domainConf(req),
		filepath.Join(h.cert, main+".csr"):  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: req.CSR})),
	}
	if len(req.Previous) > 0 {
		files[filepath.Join(h.cert, main+".cer")] = string(req.Previous)
	}
	for path, data := range files {
		if err := h.write(path, data); err != nil {
			return nil, errors.Join(err, h.remove())
		}
	}
	if err := h.setDNS(i, req); err != nil {
		return nil, errors.Join(err, h.remove())
	}
	h.finishMask()
	if err := h.record(false); err != nil {
		return nil, errors.Join(err, h.remove())
	}
	return h, nil
}

// write makes a file in the home.
func (h *home) write(name, data string) error { return h.put(name, data, 0o600) }

// put makes a file anew: what stands in its place may be a FIFO, which would hold the hub up, or a link.
func (h *home) put(name, data string, mode fs.FileMode) error {
	if err := h.root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := h.root.RemoveAll(name); err != nil {
		return err
	}
	file, err := h.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.WriteString(data)
	return errors.Join(err, file.Close())
}

// finishMask hides the credentials, in the forms in which programs print them, from what is told from now on.
func (h *home) finishMask() {
	forms := map[string]bool{}
	for _, value := range slices.Concat(slices.Collect(maps.Values(h.credentials)), h.secrets) {
		if len(value) < 4 {
			continue // hiding it would hide half of the text, and nobody guesses less than by trying
		}
		forms[value], forms[url.QueryEscape(value)], forms[url.PathEscape(value)] = true, true, true
		for before := range 3 { // base64 looks different by what stands before, as in "user:password"
			if text := base64Part(value, before); len(text) >= 4 {
				forms[text] = true
			}
		}
	}
	// Of two forms that begin alike, the longer one is to be found: the replacer takes the first that fits.
	longest := slices.SortedFunc(maps.Keys(forms), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	var pairs []string
	for _, form := range longest {
		pairs = append(pairs, form, "***")
	}
	h.mask = strings.NewReplacer(pairs...)
}

// base64Part are the characters of a base64 text that value alone decides, where that many bytes stand before it.
func base64Part(value string, before int) string {
	text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + value))
	from := (before*8 + 5) / 6
	to := (before + len(value)) * 8 / 6
	return text[from:to]
}

// environment is all that acme.sh gets.
func (h *home) environment() []string {
	env := []string{
		"PATH=" + filepath.Join(h.dir, "bin") + ":" + programDirs, "HOME=" + h.dir, "TMPDIR=" + filepath.Join(h.dir, "tmp"),
		"LC_ALL=C", "TZ=UTC", "NO_TIMESTAMP=1", // it would start date(1) for each of some hundred lines of the log
		"LOG_FILE=" + filepath.Join(h.dir, "job.log"), "LOG_LEVEL=2",
		"LE_WORKING_DIR=" + h.dir, "LE_CONFIG_HOME=" + h.dir,
		"CERTFERRY_RUN=" + h.dir, "CERTFERRY_LAST=" + h.lastRecord, "CERTFERRY_WAIT=" + strconv.Itoa(int((h.wait+wrapperSlack)/time.Second)),
		"CERTFERRY_DO=" + h.do, "CERTFERRY_CA=" + h.ca, "CERTFERRY_CURL=" + h.curl,
		"CERTFERRY_VARIABLES=" + strings.Join(slices.Sorted(maps.Keys(h.credentials)), " "),
	}
	if h.bundle != "" {
		env = append(env, "CA_BUNDLE="+h.bundle)
	}
	env = append(env, h.proxy...)
	for name, value := range h.credentials {
		env = append(env, name+"="+value)
	}
	return env
}

// assign is a line of acme.sh's configuration. The values were checked to hold no quote.
func assign(key, value string) string { return key + "='" + value + "'\n" }

// domainConf is the configuration that acme.sh keeps of a certificate. Lists go by the names, in their order.
func (i *Issuer) domainConf(req *issuer.Request) string {
	alt := "no"
	if len(req.Names) > 1 {
		alt = strings.Join(req.Names[1:], ",")
	}
	var webroots, aliases []string
	aliased := false
	for _, name := range req.Names {
		c := req.ChallengeOf(name)
		webroots = append(webroots, webroot(c))
		if c.Type != issuer.DNS01 {
			continue // the list of aliases is of the names that need a record
		}
		switch {
		case c.DomainAlias != "":
			aliases, aliased = append(aliases, "="+c.DomainAlias), true
		case c.Alias != "":
			aliases, aliased = append(aliases, c.Alias), true
		default:
			aliases = append(aliases, "no")
		}
	}
	conf := assign("Le_Domain", req.Names[0]) + assign("Le_Alt", alt) + assign("Le_Webroot", strings.Join(webroots, ",")) +
		assign("Le_API", i.cfg.Directory) + assign("Le_Keylength", "ec-256") +
		assign("Le_DNSSleep", "1") + // the hook waits
		assign("Le_HTTPPort", strconv.Itoa(i.cfg.StandalonePort)) + assign("Le_TLSPort", strconv.Itoa(i.cfg.TLSPort))
	if aliased {
		conf += assign("Le_ChallengeAlias", strings.Join(aliases, ",")+",")
	}
	if req.Profile != "" {
		conf += assign("Le_Certificate_Profile", req.Profile)
	}
	if req.PreferredChain != "" {
		conf += assign("Le_Preferred_Chain", "__ACME_BASE64__START_"+base64.StdEncoding.EncodeToString([]byte(req.PreferredChain))+"__ACME_BASE64__END_")
	}
	return conf
}

// webroot is acme.sh's word for a challenge.
func webroot(c issuer.Challenge) string {
	switch {
	case c.Type == issuer.DNS01:
		return wrapperName
	case c.Type == issuer.TLSALPN01:
		return "alpn"
	case c.Method == "webroot":
		return c.Webroot
	case c.Method == "stateless":
		return "stateless"
	default:
		return "no" // standalone
	}
}

// errAnswer says that acme.sh went through, and the CA's answer is not the certificate that was ordered.
var errAnswer = errors.New("the CA's answer is not what was ordered")

// chain reads and checks the chain that acme.sh left. An exit code of 0 proves nothing: a full disk leaves an empty
// file behind one.
func (h *home) chain(req issuer.Request, now time.Time) ([]*x509.Certificate, error) {
	data, err := h.read(filepath.Join(h.cert, "fullchain.cer"))
	if err != nil || len(data) == 0 {
		return nil, errors.New("acme.sh left no certificate")
	}
	chain, err := bundle.ParseChain(data)
	if err != nil {
		return nil, fmt.Errorf("%w: read certificates: %w", errAnswer, err)
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	if string(csr.RawSubjectPublicKeyInfo) != string(chain[0].RawSubjectPublicKeyInfo) {
		return nil, fmt.Errorf("%w: it is a certificate for another key", errAnswer)
	}
	if err := (&bundle.Bundle{Leaf: chain[0], Chain: chain[1:]}).Check(req.Names, now); err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	return chain, nil
}

// log returns the end of acme.sh's own log, empty where there is none.
func (h *home) log() string {
	file, info, err := h.open("job.log")
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	if info.Size() > maxLog {
		_, _ = file.Seek(-maxLog, io.SeekEnd) // the end tells what went wrong
	}
	data, _ := io.ReadAll(io.LimitReader(file, maxLog)) // a part of a log is better than none
	return string(data)
}

// open opens a file of the folder for reading. Whoever acme.sh runs as may have put anything in its place: a FIFO, which
// would hold the hub up for good, is refused unopened, and so are links.
func (h *home) open(name string) (*os.File, fs.FileInfo, error) {
	file, err := h.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("read %s: it is no regular file", name)
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, info, nil
}

// read reads a file of the folder, of maxFile bytes at most.
func (h *home) read(name string) ([]byte, error) {
	file, info, err := h.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if info.Size() > maxFile {
		return nil, fmt.Errorf("read %s: larger than %d bytes", name, maxFile)
	}
	return io.ReadAll(io.LimitReader(file, maxFile))
}

// remove deletes the folder, and then what is recorded of it.
func (h *home) remove() error {
	return errors.Join(h.root.Close(), os.RemoveAll(h.dir), forget(h.dir+runSuffix))
}
