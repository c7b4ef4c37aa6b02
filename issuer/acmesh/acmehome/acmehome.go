// Package acmehome reads the folder that acme.sh keeps where people run it by hand or by cron, so that a hub can take
// over what it holds. Its files are shell, and are read here, never run.
package acmehome

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
)

// maxFile is the most that a file may hold, in bytes.
const maxFile = 1 << 20

// Home is what a folder of acme.sh holds.
type Home struct {
	Accounts     []Account
	Certificates []Certificate
	// Saved are the variables of DNS hooks, by the names that hooks know. They are secret.
	Saved map[string]string
	// Left says what could not be read, one sentence each.
	Left []string
}

// Account is an ACME account.
type Account struct {
	// Directory is the CA's URL, Account the account's own, empty where the folder does not tell.
	Directory string
	URL       string
	Email     string
	// Key is the private key in PEM.
	Key []byte
}

// Certificate is one that acme.sh renews.
type Certificate struct {
	// Folder is its folder's name, such as www.example.com_ecc.
	Folder string
	Names  []string
	// Directory is the URL of the CA's directory.
	Directory string
	// Places say for each of Names how it is proven, in acme.sh's words: a folder, "no" for standalone, "stateless",
	// "alpn", or a DNS hook. Aliases are those of DNS records, by name; empty for none, with "=" before it for a name as it
	// stands.
	Places  []string
	Aliases []string
	// PreferredChain and Profile are asked of the CA; empty for none.
	PreferredChain string
	Profile        string
	// Chain and Key are PEM.
	Chain []byte
	Key   []byte
}

// Read reads a folder. It is an error where it is none of acme.sh's; single files that cannot be read are told in Left.
func Read(dir string) (*Home, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open acme.sh's folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	conf, err := readConf(root, "account.conf")
	if err != nil {
		return nil, fmt.Errorf("read account.conf of acme.sh's folder: %w", err)
	}
	r := &reader{root: root, home: &Home{Saved: map[string]string{}}}
	for name, value := range conf {
		if bare, ok := strings.CutPrefix(name, "SAVED_"); ok {
			r.home.Saved[bare] = value
		}
	}
	if err := r.certificates(); err != nil {
		return nil, err
	}
	if err := r.accounts(conf["ACCOUNT_EMAIL"]); err != nil {
		return nil, err
	}
	return r.home, nil
}

type reader struct {
	root *os.Root
	home *Home
}

func (r *reader) left(format string, args ...any) {
	r.home.Left = append(r.home.Left, fmt.Sprintf(format, args...))
}

// certificates reads each folder that holds a configuration of its domain.
func (r *reader) certificates() error {
	entries, err := fs.ReadDir(r.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("read acme.sh's folder: %w", err)
	}
	for _, e := range entries {
		domain := strings.TrimSuffix(e.Name(), "_ecc")
		conf, err := readConf(r.root, path.Join(e.Name(), domain+".conf"))
		if errors.Is(err, fs.ErrNotExist) || !e.IsDir() {
			continue
		}
		if err != nil {
			r.left("certificate %s: its configuration cannot be read: %v", e.Name(), err)
			continue
		}
		c, err := r.certificate(e.Name(), domain, conf)
		if err != nil {
			r.left("certificate %s: %v", e.Name(), err)
			continue
		}
		r.home.Certificates = append(r.home.Certificates, *c)
	}
	return nil
}

func (r *reader) certificate(folder, domain string, conf map[string]string) (*Certificate, error) {
	c := &Certificate{
		Folder: folder, Directory: conf["Le_API"], PreferredChain: conf["Le_Preferred_Chain"], Profile: conf["Le_Certificate_Profile"],
		Names: append([]string{conf["Le_Domain"]}, list(conf["Le_Alt"])...),
	}
	if c.Names[0] != domain {
		return nil, errors.New("its configuration is of another name")
	}
	places := list(conf["Le_Webroot"])
	if len(places) == 0 {
		// The list drops "no", which is standalone here.
		places = []string{standalone}
	}
	aliases := list(conf["Le_ChallengeAlias"])
	for n := range c.Names {
		c.Places = append(c.Places, places[min(n, len(places)-1)])
		if len(aliases) == 0 {
			c.Aliases = append(c.Aliases, "")
			continue
		}
		alias := aliases[min(n, len(aliases)-1)]
		if alias == "no" {
			alias = ""
		}
		c.Aliases = append(c.Aliases, alias)
	}
	var err error
	if c.Chain, err = readFile(r.root, path.Join(folder, "fullchain.cer")); err != nil {
		return nil, errors.New("nothing was issued for it: there is no fullchain.cer")
	}
	if c.Key, err = readFile(r.root, path.Join(folder, domain+".key")); err != nil {
		return nil, errors.New("its private key cannot be read")
	}
	return c, nil
}

// standalone is acme.sh's word for it.
const standalone = "no"

// list splits acme.sh's lists; "no" alone is none.
func list(text string) []string {
	if text == "" || text == "no" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, ","), ",")
}

// accounts reads ca/<host>/<path of the directory>. A port is not part of the path, so that the URLs that certificates
// name count.
func (r *reader) accounts(email string) error {
	err := fs.WalkDir(r.root.FS(), "ca", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || path.Base(name) != "account.key" {
			return err
		}
		key, err := readFile(r.root, name)
		if err != nil {
			r.left("account %s: its key cannot be read", path.Dir(name))
			return nil //nolint:nilerr // it is told in Left
		}
		where := strings.TrimPrefix(path.Dir(name), "ca/")
		a := Account{Directory: "https://" + where, Email: email, Key: key}
		for _, c := range r.home.Certificates {
			if placeOf(c.Directory) == where {
				a.Directory = c.Directory
			}
		}
		if conf, err := readConf(r.root, path.Join(path.Dir(name), "ca.conf")); err == nil {
			a.URL = conf["ACCOUNT_URL"]
			if conf["CA_EMAIL"] != "" {
				a.Email = conf["CA_EMAIL"]
			}
		}
		r.home.Accounts = append(r.home.Accounts, a)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read accounts of acme.sh's folder: %w", err)
	}
	return nil
}

// placeOf is where the account of a directory stands below ca.
func placeOf(directory string) string {
	host, rest, _ := strings.Cut(strings.TrimPrefix(directory, "https://"), "/")
	host, _, _ = strings.Cut(host, ":")
	return path.Join(host, rest)
}

func readConf(root *os.Root, name string) (map[string]string, error) {
	data, err := readFile(root, name)
	if err != nil {
		return nil, err
	}
	return Parse(string(data))
}

func readFile(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, errors.New("it is no file, or too large")
	}
	return root.ReadFile(name)
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// Marks of a value that acme.sh wrote in base64.
const (
	encodedFrom = "__ACME_BASE64__START_"
	encodedTo   = "__ACME_BASE64__END_"
)

// Parse reads lines NAME='value' as acme.sh writes them; empty lines and comments are passed over. Errors name lines and
// never values, which may be secrets. What a shell would make of a value is not done.
func Parse(text string) (map[string]string, error) {
	values := map[string]string{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || !variable.MatchString(name) {
			return nil, fmt.Errorf("line %d is not NAME='value'", n)
		}
		value, fault := valueOf(value)
		if fault != "" {
			return nil, fmt.Errorf("line %d %s", n, fault)
		}
		values[name] = value
	}
	return values, nil
}

// valueOf is what a value says without its quotes and its base64, or what is wrong with it.
func valueOf(value string) (plain, fault string) {
	for _, quote := range []string{"'", `"`} {
		if len(value) >= 2 && strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
			value = value[1 : len(value)-1]
			break
		}
	}
	if inner, ok := strings.CutPrefix(value, encodedFrom); ok && strings.HasSuffix(inner, encodedTo) {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(inner, encodedTo))
		if err != nil {
			return "", "holds damaged base64"
		}
		value = strings.TrimSuffix(string(raw), "\n")
	}
	if strings.ContainsRune(value, 0) {
		return "", "holds a zero byte"
	}
	return value, ""
}
