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
	"crypto/tls"
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

// account returns the account of the directory, registered where it is not yet.
func (i *Issuer) account(ctx context.Context) (*account, error) {
	i.registering.Lock()
	defer i.registering.Unlock()
	dir := i.accountDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "keep the ACME account", Err: err}
	}
	a, err := i.accountKey(filepath.Join(dir, "account.key"))
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Account, Detail: "read the ACME account's key; restore it from a backup, or remove it to register anew", Err: err}
	}
	file := filepath.Join(dir, "account.json")
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
func (i *Issuer) accountKey(path string) (*account, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the path is ours
	if errors.Is(err, fs.ErrNotExist) {
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

// client speaks to the CA as the account a.
func (i *Issuer) client(a *account) (*acme.Client, func(), error) {
	client, done, err := i.httpClient()
	if err != nil {
		return nil, nil, err
	}
	return &acme.Client{
		Key: a.key, KID: acme.KeyID(a.URL), DirectoryURL: i.cfg.Directory, UserAgent: "certferry", HTTPClient: client,
	}, done, nil
}

// httpClient trusts what acme.sh is told to trust. done ends its connections.
func (i *Issuer) httpClient() (client *http.Client, done func(), err error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second}
	if i.cfg.CABundle != "" {
		data, err := os.ReadFile(i.cfg.CABundle)
		if err != nil {
			return nil, nil, &issuer.Error{Class: issuer.Local, Detail: "read the CA bundle", Err: err}
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, nil, &issuer.Error{Class: issuer.Local, Detail: "read the CA bundle: it holds no certificate"}
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	return &http.Client{Transport: bounded{transport}, Timeout: 30 * time.Second}, transport.CloseIdleConnections, nil
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
		if binding.KID, binding.Key, err = i.cfg.EAB(); err != nil {
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
		return registrationError(err)
	}
	if !directoryURL(registered.URI) {
		return &issuer.Error{Class: issuer.Permanent, Detail: "the CA gave the account an address with characters that are not allowed"}
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
// when somebody orders again.
func (i *Issuer) Deactivate(ctx context.Context) error {
	a, err := i.account(ctx)
	if err != nil {
		return err
	}
	client, done, err := i.client(a)
	if err != nil {
		return err
	}
	defer done()
	if err := client.DeactivateReg(ctx); err != nil {
		return i.refused("deactivate the account", err)
	}
	i.registering.Lock()
	defer i.registering.Unlock()
	for _, name := range []string{"account.json", "account.key"} {
		path := filepath.Join(i.accountDir(), name)
		if err := os.Rename(path, path+i.cfg.Now().UTC().Format(".20060102T150405Z")); err != nil {
			return &issuer.Error{Class: issuer.Local, Detail: "the account is deactivated, and its key could not be put aside", Err: err}
		}
	}
	return nil
}

// accountDir is the folder of the account of the directory.
func (i *Issuer) accountDir() string { return accountDir(i.cfg.StateDir, i.cfg.Directory) }

func accountDir(stateDir, directory string) string {
	sum := sha256.Sum256([]byte(directory))
	return filepath.Join(stateDir, hex.EncodeToString(sum[:8]))
}

// ImportAccount takes over an account that was registered elsewhere: its key in PEM and its URL, empty where it is not
// known and the CA is asked for it. It answers fs.ErrExist where there is an account of the directory already.
func ImportAccount(stateDir, directoryOf, url string, keyPEM []byte) error {
	if _, err := bundle.ParseKey(keyPEM); err != nil {
		return fmt.Errorf("import ACME account: %w", err)
	}
	dir := accountDir(stateDir, directoryOf)
	if _, err := os.Stat(filepath.Join(dir, "account.key")); err == nil {
		return fmt.Errorf("import ACME account: %w", fs.ErrExist)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("import ACME account: %w", err)
	}
	if directoryURL(url) {
		data, err := json.Marshal(account{URL: url, Directory: directoryOf})
		if err == nil {
			err = writeFile(filepath.Join(dir, "account.json"), data)
		}
		if err != nil {
			return fmt.Errorf("import ACME account: %w", err)
		}
	}
	// The key last: it says that there is an account.
	if err := writeFile(filepath.Join(dir, "account.key"), keyPEM); err != nil {
		return fmt.Errorf("import ACME account: %w", err)
	}
	return nil
}

// refused gives what the CA answered its class.
func (i *Issuer) refused(what string, err error) error {
	problem := new(acme.Error)
	if !errors.As(err, &problem) {
		return &issuer.Error{Class: issuer.Retryable, Phase: issuer.PhaseAccount, Detail: what + ": the CA cannot be reached", Err: err}
	}
	short := strings.TrimPrefix(problem.ProblemType, acmeURN)
	e := &issuer.Error{Class: classOf(short, problem.StatusCode), ACMEType: short, Detail: what + ": " + told(problem)}
	if limit, ok := acme.RateLimit(err); ok {
		e.RetryAfter = limit
	}
	return e
}

// told is what a CA's problem document says. Whatever else answered is not repeated: it may not be the CA at all.
func told(problem *acme.Error) string {
	if problem.ProblemType == "" {
		return fmt.Sprintf("the answer, with status %d, is not one of ACME", problem.StatusCode)
	}
	return oneLine(problem.Detail)
}

func registrationError(err error) error {
	problem := new(acme.Error)
	if !errors.As(err, &problem) {
		return &issuer.Error{Class: issuer.Retryable, Detail: "the CA cannot be reached to register the account", Err: err}
	}
	short := strings.TrimPrefix(problem.ProblemType, acmeURN)
	class := classOf(short, problem.StatusCode)
	if class == issuer.Permanent && short != "rejectedIdentifier" {
		class = issuer.Account
	}
	return &issuer.Error{Class: class, ACMEType: short, Detail: "register the account: " + told(problem)}
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
