// This file keeps the ACME account of a CA: a key made here, registered once. acme.sh gets a copy for each run and
// never makes an account of its own.

package acmesh

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
)

// account is a registered ACME account.
type account struct {
	// URL names the account at its CA.
	URL string `json:"url"`
	// Directory is the CA's, for people who look into the folder.
	Directory string `json:"directory"`
	// keyPEM is the private key.
	keyPEM []byte
	key    crypto.Signer
}

func (a *account) thumbprint() (string, error) {
	thumbprint, err := acme.JWKThumbprint(a.key.Public())
	if err != nil {
		return "", fmt.Errorf("compute account thumbprint: %w", err)
	}
	return thumbprint, nil
}

// Files of an account's folder.
const (
	accountFile = "account.json"
	keyFile     = "account.key"
)

// accountDirs are held while an account is looked for or ended, so that it is registered once: all issuers of a directory
// share it, and one whose wish has changed has two drivers for a while.
var accountDirs slots[string]

// holdAccount waits until nobody else looks for the account.
func (i *Issuer) holdAccount(ctx context.Context) (release func(), err error) {
	release, err = accountDirs.hold(ctx, i.accountDir())
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Retryable, Phase: issuer.PhaseAccount, Detail: "another order asked the CA for the account all the time", Err: err}
	}
	return release, nil
}

// account returns the account of the directory, registered where it is not yet.
func (i *Issuer) account(ctx context.Context) (*account, error) {
	release, err := i.holdAccount(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return i.heldAccount(ctx)
}

// heldAccount is account for who holds it.
func (i *Issuer) heldAccount(ctx context.Context) (*account, error) {
	dir := i.accountDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "keep the ACME account", Err: err}
	}
	a, err := i.accountKey(dir)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Account, Detail: "read the ACME account's key; restore it from a backup, or remove it to register anew", Err: err}
	}
	file := filepath.Join(dir, accountFile)
	data, err := os.ReadFile(file) //nolint:gosec // the path is ours
	if err == nil && json.Unmarshal(data, a) == nil && directoryURL(a.URL) {
		return a, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "read the ACME account", Err: err}
	}
	if err := i.register(ctx, a); err != nil {
		return nil, err
	}
	if data, err = json.Marshal(a); err == nil {
		err = writeFile(file, data)
	}
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "keep the ACME account", Err: err}
	}
	return a, nil
}

// directoryURL says whether a URL that a CA gave holds nothing that a shell reads.
func directoryURL(url string) bool { return directory.MatchString(url) }

// accountKey reads the account's key, or makes it. It is on disk before it is registered, so that no account is lost.
func (i *Issuer) accountKey(dir string) (*account, error) {
	path := filepath.Join(dir, keyFile)
	data, err := os.ReadFile(path) //nolint:gosec // the path is ours
	if errors.Is(err, fs.ErrNotExist) {
		// What is known of an account is of the key that is gone.
		if err := forget(filepath.Join(dir, accountFile)); err != nil {
			return nil, err
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, err
		}
		data = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
		if err := writeFile(path, data); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	key, err := bundle.ParseKey(data)
	if err != nil {
		return nil, err
	}
	return &account{Directory: i.cfg.Directory, keyPEM: data, key: key}, nil
}

// forget removes a file, which need not be there.
func forget(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// client speaks to the CA as the account a.
func (i *Issuer) client(a *account) (*acme.Client, func(), error) {
	client, done, err := i.httpClient()
	if err != nil {
		return nil, nil, err
	}
	return &acme.Client{
		Key: a.key, KID: acme.KeyID(a.URL), DirectoryURL: i.cfg.Directory, UserAgent: "certferry", HTTPClient: client,
		RetryBackoff: backoff,
	}, done, nil
}

// maxTries bounds how often a request is sent that the CA cannot serve at the moment.
const maxTries = 5

// backoff is how long to wait before a request is sent again, 0 for not at all: who is to come back later, by the CA's
// own word, does not wait here with an order's place.
func backoff(n int, _ *http.Request, answer *http.Response) time.Duration {
	if n >= maxTries || answer.StatusCode == http.StatusTooManyRequests || answer.Header.Get("Retry-After") != "" {
		return 0
	}
	return time.Second << (n - 1) / 4
}

// httpClient trusts what acme.sh is told to trust. done ends its connections.
func (i *Issuer) httpClient() (client *http.Client, done func(), err error) {
	transport := &http.Transport{Proxy: i.cfg.proxyFor, TLSHandshakeTimeout: 10 * time.Second}
	if transport.TLSClientConfig, err = i.cfg.tlsConfig(); err != nil {
		return nil, nil, err
	}
	return &http.Client{Transport: bounded{transport, i.cfg.Directory}, Timeout: 30 * time.Second}, transport.CloseIdleConnections, nil
}

// register makes the account at the CA (RFC 8555 §7.3), or finds it there by its key.
func (i *Issuer) register(ctx context.Context, a *account) error {
	client, done, err := i.client(a)
	if err != nil {
		return err
	}
	defer done()
	wish := &acme.Account{}
	if i.cfg.Email != "" {
		wish.Contact = []string{"mailto:" + i.cfg.Email}
	}
	if i.cfg.EAB != nil {
		binding := &acme.ExternalAccountBinding{}
		if binding.KID, binding.Key, err = i.cfg.EAB(); err == nil && binding.KID != "" {
			err = checkEAB(binding.KID, binding.Key)
		}
		if err != nil {
			return &issuer.Error{Class: issuer.Account, Detail: "read what binds the account to one at the CA (EAB)", Err: err}
		}
		if binding.KID != "" {
			wish.ExternalAccountBinding = binding
		}
	}
	registered, err := client.Register(ctx, wish, acme.AcceptTOS)
	if errors.Is(err, acme.ErrAccountAlreadyExists) {
		registered, err = client.GetReg(ctx, "")
	}
	if err != nil {
		failed := i.refused("register the account", err)
		if failed.Class == issuer.Permanent && failed.ACMEType != "rejectedIdentifier" {
			failed.Class = issuer.Account
		}
		return failed
	}
	if !directoryURL(registered.URI) || !isOwn(registered.URI, i.cfg.Directory) {
		return &issuer.Error{Class: issuer.Permanent, Detail: "the CA gave the account an address that is not a plain one of its own"}
	}
	a.URL = registered.URI
	return nil
}

// Account asks the CA for the account, and registers it where there is none. It is part of an issuer.AccountHolder.
func (i *Issuer) Account(ctx context.Context) (issuer.AccountInfo, error) {
	a, err := i.account(ctx)
	if err != nil {
		return issuer.AccountInfo{}, err
	}
	client, done, err := i.client(a)
	if err != nil {
		return issuer.AccountInfo{}, err
	}
	defer done()
	found, err := client.GetReg(ctx, "")
	if err != nil {
		return issuer.AccountInfo{}, i.refused("ask for the account", err)
	}
	return issuer.AccountInfo{URL: found.URI, Status: found.Status, Contact: found.Contact}, nil
}

// Deactivate ends the account at the CA for good (RFC 8555 §7.3.6). Its key is put aside, so that a new account is made
// when somebody orders again. One that the CA has ended already is no error.
func (i *Issuer) Deactivate(ctx context.Context) error {
	release, err := i.holdAccount(ctx)
	if err != nil {
		return err
	}
	defer release()
	if _, err := os.Lstat(filepath.Join(i.accountDir(), keyFile)); errors.Is(err, fs.ErrNotExist) {
		return permanent("there is no account: none was needed yet, or it is deactivated already")
	}
	a, err := i.heldAccount(ctx)
	if err == nil {
		err = i.deactivate(ctx, a)
	}
	if err != nil && !deactivated(err) {
		return err
	}
	// The key first: without it, nothing else of the account counts.
	for _, name := range []string{keyFile, accountFile} {
		path := filepath.Join(i.accountDir(), name)
		err := os.Rename(path, path+i.cfg.Now().UTC().Format(".20060102T150405Z"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &issuer.Error{Class: issuer.Local, Detail: "the account is deactivated, and its key could not be put aside", Err: err}
		}
	}
	return nil
}

func (i *Issuer) deactivate(ctx context.Context, a *account) error {
	client, done, err := i.client(a)
	if err != nil {
		return err
	}
	defer done()
	if err := client.DeactivateReg(ctx); err != nil {
		return i.refused("deactivate the account", err)
	}
	return nil
}

// deactivated says that a CA refused because the account had ended: it has no problem type of its own for that
// (RFC 8555 §7.3.6 asks for unauthorized), but all say the word.
func deactivated(err error) bool {
	failed, ok := errors.AsType[*issuer.Error](err)
	return ok && (failed.ACMEType == "accountDoesNotExist" || failed.ACMEType == "unauthorized" && strings.Contains(failed.Detail, "deactivated"))
}

// accountDir is the folder of the account of the directory.
func (i *Issuer) accountDir() string { return accountDir(i.cfg.StateDir, i.cfg.Directory) }

func accountDir(stateDir, directory string) string {
	sum := sha256.Sum256([]byte(directory))
	return filepath.Join(stateDir, hex.EncodeToString(sum[:8]))
}

// HasAccount says whether there is an account of the directory, registered or imported, or a try at one.
func HasAccount(stateDir, directory string) bool {
	_, err := os.Stat(filepath.Join(accountDir(stateDir, directory), keyFile))
	return err == nil
}

// ImportAccount takes over an account that was registered elsewhere: its key in PEM and its URL, empty where it is not
// known and the CA is asked for it. It answers fs.ErrExist where there is an account of the directory already.
func ImportAccount(stateDir, directoryOf, url string, keyPEM []byte) error {
	if _, err := bundle.ParseKey(keyPEM); err != nil {
		return fmt.Errorf("import ACME account: %w", err)
	}
	dir := accountDir(stateDir, directoryOf)
	if _, err := os.Stat(filepath.Join(dir, keyFile)); err == nil {
		return fmt.Errorf("import ACME account: %w", fs.ErrExist)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("import ACME account: %w", err)
	}
	err := forget(filepath.Join(dir, accountFile)) // of a key that is gone
	if err == nil && directoryURL(url) {
		var data []byte
		if data, err = json.Marshal(account{URL: url, Directory: directoryOf}); err == nil {
			err = writeFile(filepath.Join(dir, accountFile), data)
		}
	}
	if err != nil {
		return fmt.Errorf("import ACME account: %w", err)
	}
	// The key last: it says that there is an account.
	if err := writeFile(filepath.Join(dir, keyFile), keyPEM); err != nil {
		return fmt.Errorf("import ACME account: %w", err)
	}
	return nil
}

// refused gives what the CA answered its class.
func (i *Issuer) refused(what string, err error) *issuer.Error {
	if errors.Is(err, acme.ErrNoAccount) {
		return &issuer.Error{Class: issuer.Account, Phase: issuer.PhaseAccount, ACMEType: "accountDoesNotExist", Detail: what + ": the CA does not know it"}
	}
	problem, ok := errors.AsType[*acme.Error](err)
	if !ok {
		return &issuer.Error{Class: issuer.Retryable, Phase: issuer.PhaseAccount, Detail: what + ": the CA cannot be reached", Err: err}
	}
	short := strings.TrimPrefix(problem.ProblemType, acmeURN)
	return &issuer.Error{
		Class: classOf(short, problem.StatusCode), ACMEType: short, Detail: what + ": " + told(problem), RetryAfter: retryAfter(problem.Header, i.cfg.Now()),
	}
}

// told is what a CA's problem document says. Whatever else answered is not repeated: it may not be the CA at all.
func told(problem *acme.Error) string {
	if problem.ProblemType == "" {
		return fmt.Sprintf("the answer, with status %d, is not one of ACME", problem.StatusCode)
	}
	return oneLine(problem.Detail)
}

// writeFile replaces a file in one synced step.
func writeFile(path string, data []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
