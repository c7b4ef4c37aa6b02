// This file is a stand-in for acme.sh, for machines where no copy of it is: it takes acme.sh's command line and files
// and speaks real ACME to the CA, in Go. It knows what the driver uses and no more. With ACME_SH set, the same tests
// run the real one.

package issuertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/acme"
)

// StandInArg is the first argument that turns a test binary into the stand-in; its TestMain calls StandIn with the rest.
const StandInArg = "acme.sh-stand-in"

// WriteStandIn writes a script into dir that runs executable as the stand-in, and returns its path. The script takes
// the place of acme.sh.
func WriteStandIn(dir, executable string) (string, error) {
	path := filepath.Join(dir, "acme.sh")
	script := fmt.Sprintf("#!/bin/sh\nexec %q %s \"$@\"\n", executable, StandInArg)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(path, []byte(script), 0o700)); err != nil { //nolint:gosec // a script is run
		return "", fmt.Errorf("write stand-in: %w", err)
	}
	return path, nil
}

// StandIn carries out acme.sh's --renew with the arguments args, or what the driver's records.sh does, and returns the
// exit code.
func StandIn(args []string) int {
	s := &standIn{flags: map[string]string{}, run: os.Getenv("CERTFERRY_RUN")} //nolint:forbidigo // a program of its own
	if len(args) > 0 && args[0] == "." {
		return s.changeRecords()
	}
	for n, arg := range args {
		if strings.HasPrefix(arg, "--") && n+1 < len(args) {
			s.flags[arg] = args[n+1]
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	err := s.renew(ctx)
	s.removeRecords(ctx)
	if errors.Is(err, errStopped) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM) // as the hook does
		select {}
	}
	if err != nil {
		s.logProblem(err)
		fmt.Fprintf(os.Stderr, "%s%v\n", stamp(), err)
		return 1
	}
	return 0
}

// stamp is the time before a line, as acme.sh prints it where it is not told otherwise.
func stamp() string {
	if os.Getenv("NO_TIMESTAMP") == "1" { //nolint:forbidigo // as acme.sh does
		return ""
	}
	return time.Now().UTC().Format("[Mon Jan _2 15:04:05 UTC 2006] ") //nolint:forbidigo // a program of its own
}

// problemJSON is the document that the CA sent, as acme.sh logs it.
func problemJSON(err error) string {
	document := map[string]any{}
	if a := new(acme.AuthorizationError); errors.As(err, &a) {
		var challenges []any
		for _, cause := range a.Errors {
			if p := new(acme.Error); errors.As(cause, &p) {
				challenges = append(challenges, map[string]any{"error": map[string]any{"type": p.ProblemType, "detail": p.Detail}})
			}
		}
		document["identifier"] = map[string]string{"value": a.Identifier}
		document["challenges"] = challenges
	} else if o := new(acme.OrderError); errors.As(err, &o) && o.Problem != nil {
		document["error"] = map[string]any{"type": o.Problem.ProblemType, "detail": o.Problem.Detail, "status": o.Problem.StatusCode}
	} else if p := new(acme.Error); errors.As(err, &p) {
		document["type"], document["detail"], document["status"] = p.ProblemType, p.Detail, p.StatusCode
	}
	data, _ := json.Marshal(document) // maps of strings and numbers
	return string(data)
}

// logProblem logs the answer that ended the run, in acme.sh's order: headers, status, body.
func (s *standIn) logProblem(err error) {
	if p := new(acme.Error); errors.As(err, &p) {
		s.log("responseHeaders", fmt.Sprintf("HTTP/1.1 %d\nRetry-After: %s", p.StatusCode, p.Header.Get("Retry-After")))
		s.log("code", strconv.Itoa(p.StatusCode))
	}
	s.log("original", problemJSON(err))
}

// backoff tries again when acme.sh does: after a refused nonce, and when the CA names a short wait. 0 and less gives up.
func backoff(n int, _ *http.Request, answer *http.Response) time.Duration {
	wait, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	switch {
	case answer.StatusCode == http.StatusBadRequest && n < 20:
		return 10 * time.Millisecond
	case answer.StatusCode == http.StatusServiceUnavailable && err == nil && wait <= 600:
		return time.Duration(wait) * time.Second
	default:
		return -1
	}
}

// errStopped is the end that the driver's hook makes.
var errStopped = errors.New("stopped by the hook")

type standIn struct {
	flags map[string]string
	conf  map[string]string
	acme  *acme.Client
	// run is the home.
	run string
	// undo are the records that were made.
	undo []func() error
}

// info says a line as acme.sh does, on the terminal and in the log.
func (s *standIn) info(text string) {
	if file, err := os.OpenFile(os.Getenv("LOG_FILE"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil { //nolint:forbidigo,gosec // as acme.sh does
		_, _ = fmt.Fprintf(file, "%s%s\n", stamp(), text)
		_ = file.Close()
	}
	_, _ = fmt.Fprintf(os.Stdout, "%s%s\n", stamp(), text)
}

func (s *standIn) removeRecords(context.Context) {
	for _, undo := range s.undo {
		_ = undo() // as acme.sh: it says so and goes on
	}
	s.undo = nil
}

func (s *standIn) log(name, value string) {
	file, err := os.OpenFile(os.Getenv("LOG_FILE"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:forbidigo,gosec // as acme.sh does
	if err != nil {
		return
	}
	_, _ = fmt.Fprintf(file, "%s%s='%s'\n", stamp(), name, value)
	_ = file.Close()
}

func (s *standIn) renew(ctx context.Context) error {
	folder := filepath.Join(s.flags["--cert-home"], s.flags["--domain"]+"_ecc")
	var err error
	if s.conf, err = readConf(filepath.Join(folder, s.flags["--domain"]+".conf")); err != nil {
		return err
	}
	s.info("Using CA: " + s.flags["--server"])
	if err := s.connect(); err != nil {
		return err
	}
	s.info("Signing from existing CSR.")
	names := []string{s.conf["Le_Domain"]}
	if alt := s.conf["Le_Alt"]; alt != "no" {
		names = append(names, strings.Split(alt, ",")...)
	}
	order, err := s.acme.AuthorizeOrder(ctx, acme.DomainIDs(names...))
	if err != nil {
		return fmt.Errorf("error creating new order: %w", err)
	}
	if err := s.authorizeAll(ctx, order, names); err != nil {
		return err
	}
	s.info("Verification finished, beginning signing.")
	s.info("Let's finalize the order.")
	data, err := os.ReadFile(filepath.Join(folder, s.flags["--domain"]+".csr")) //nolint:gosec // a test's file
	if err != nil {
		return err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return errors.New("no CSR")
	}
	chain, url, err := s.acme.CreateOrderCert(ctx, order.FinalizeURL, block.Bytes, true)
	if refused := new(acme.Error); errors.As(err, &refused) {
		return fmt.Errorf("signing failed: %w", err)
	}
	if err != nil {
		// Pebble's answer to finalize does not name the order, so the library loses it while the CA still works.
		done, waitErr := s.acme.WaitOrder(ctx, order.URI)
		if waitErr != nil {
			return fmt.Errorf("signing failed: %w", errors.Join(err, waitErr))
		}
		url = done.CertURL
		if chain, err = s.acme.FetchCert(ctx, url, true); err != nil {
			return fmt.Errorf("signing failed: %w", err)
		}
	}
	s.info("Downloading cert.")
	chain = s.preferred(ctx, chain, url)
	var out bytes.Buffer
	for _, der := range chain {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Buffer takes everything
	}
	s.info("Cert success.")
	return os.WriteFile(filepath.Join(folder, "fullchain.cer"), out.Bytes(), 0o600)
}

// readConf reads lines of KEY='value'.
func readConf(path string) (map[string]string, error) {
	data, err := os.ReadFile(path) //nolint:gosec // a test's file
	if err != nil {
		return nil, err
	}
	conf := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		conf[key] = strings.Trim(value, "'")
	}
	return conf, nil
}

// connect uses the account that the driver seeded.
func (s *standIn) connect() error {
	pool := x509.NewCertPool()
	if path := os.Getenv("CA_BUNDLE"); path != "" { //nolint:forbidigo // as acme.sh does
		data, err := os.ReadFile(path) //nolint:gosec // a test's file
		if err != nil {
			return err
		}
		pool.AppendCertsFromPEM(data)
	}
	var key *pem.Block
	var url string
	err := filepath.WalkDir(filepath.Join(s.flags["--config-home"], "ca"), func(path string, _ os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case filepath.Base(path) == "account.key":
			data, err := os.ReadFile(path) //nolint:gosec // a test's file
			key, _ = pem.Decode(data)
			return err
		case filepath.Base(path) == "ca.conf":
			conf, err := readConf(path)
			url = conf["ACCOUNT_URL"]
			return err
		}
		return nil
	})
	if err != nil || key == nil {
		return errors.Join(errors.New("no account"), err)
	}
	signer, err := x509.ParseECPrivateKey(key.Bytes)
	if err != nil {
		return err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}}
	s.acme = &acme.Client{
		Key: signer, KID: acme.KeyID(url), DirectoryURL: s.flags["--server"],
		RetryBackoff: backoff,
		HTTPClient:   &http.Client{Transport: s.replaced(transport, signer)},
	}
	return nil
}

// pending is a challenge that is to be posted.
type pending struct {
	name      string
	url       string
	challenge *acme.Challenge
	root      string
}

// authorizeAll makes all records first and then posts the challenges one by one, as acme.sh does.
func (s *standIn) authorizeAll(ctx context.Context, order *acme.Order, names []string) error {
	roots, aliases := strings.Split(s.conf["Le_Webroot"], ","), strings.Split(s.conf["Le_ChallengeAlias"], ",")
	authorizations := map[string]*acme.Authorization{}
	for _, url := range order.AuthzURLs {
		authz, err := s.acme.GetAuthorization(ctx, url)
		if err != nil {
			return err
		}
		if authz.Status == acme.StatusInvalid {
			return invalid(authz)
		}
		name := authz.Identifier.Value
		if authz.Wildcard {
			name = "*." + name
		}
		authz.URI = url
		authorizations[name] = authz
	}
	var all []pending
	for i, name := range names {
		s.info("Getting webroot for domain " + name)
		root, alias := roots[min(i, len(roots)-1)], ""
		if strings.HasPrefix(root, "dns_") && s.conf["Le_ChallengeAlias"] != "" {
			alias, aliases = aliases[0], aliases[1:]
		}
		authz := authorizations[name]
		if authz == nil || authz.Status == acme.StatusValid {
			continue
		}
		p, err := s.prepare(ctx, name, root, alias, authz)
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	for _, p := range all {
		s.info("Verifying: " + p.name)
		if err := s.post(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// invalid is why an authorization failed.
func invalid(authz *acme.Authorization) error {
	failed := &acme.AuthorizationError{URI: authz.URI, Identifier: authz.Identifier.Value}
	for _, c := range authz.Challenges {
		if c.Error != nil {
			failed.Errors = append(failed.Errors, c.Error)
		}
	}
	return failed
}

// prepare finds the challenge of a name, and makes its record.
func (s *standIn) prepare(ctx context.Context, name, root, alias string, authz *acme.Authorization) (pending, error) {
	kind := "http-01"
	switch {
	case strings.HasPrefix(root, "dns_"):
		kind = "dns-01"
	case root == "alpn":
		kind = "tls-alpn-01"
	}
	at := slices.IndexFunc(authz.Challenges, func(c *acme.Challenge) bool { return c.Type == kind })
	if at < 0 {
		return pending{}, errors.New("Supported validation types are: others") //nolint:staticcheck // acme.sh's words
	}
	p := pending{name, authz.URI, authz.Challenges[at], root}
	if kind != "dns-01" {
		return p, nil
	}
	record := "_acme-challenge." + strings.TrimPrefix(name, "*.")
	if plain, literal := strings.CutPrefix(alias, "="); literal {
		record = plain
	} else if alias != "" && alias != "no" {
		record = "_acme-challenge." + alias
	}
	value, err := s.acme.DNS01ChallengeRecord(p.challenge.Token)
	if err != nil {
		return p, err
	}
	s.info("Adding TXT value: " + value + " for domain: " + record)
	return p, s.addRecord(ctx, record, value)
}

// post answers a challenge while the CA looks.
func (s *standIn) post(ctx context.Context, p pending) error {
	undo, err := s.present(ctx, p)
	if err != nil {
		return err
	}
	defer undo()
	if _, err := s.acme.Accept(ctx, p.challenge); err != nil {
		return err
	}
	_, err = s.acme.WaitAuthorization(ctx, p.url)
	return err
}

// present answers a challenge that is not a record until undo is called.
func (s *standIn) present(ctx context.Context, p pending) (undo func(), err error) {
	none := func() {}
	switch {
	case strings.HasPrefix(p.root, "dns_"), p.root == "stateless":
		return none, nil
	case p.root == "alpn":
		return s.listenTLS(ctx, p)
	case p.root == "no":
		return s.listen(ctx, p.challenge)
	default:
		answer, err := s.acme.HTTP01ChallengeResponse(p.challenge.Token)
		if err != nil {
			return none, err
		}
		path := filepath.Join(p.root, filepath.FromSlash(s.acme.HTTP01ChallengePath(p.challenge.Token)))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(answer), 0o644)); err != nil { //nolint:gosec // a web server reads it
			return none, fmt.Errorf("Cannot write token to file: %w", err) //nolint:staticcheck // acme.sh's words
		}
		return func() { _ = os.Remove(path) }, nil
	}
}

// listenTLS answers tls-alpn-01 (RFC 8737).
func (s *standIn) listenTLS(ctx context.Context, p pending) (func(), error) {
	certificate, err := s.acme.TLSALPN01ChallengeCert(p.challenge.Token, p.name)
	if err != nil {
		return nil, err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:"+s.conf["Le_TLSPort"], &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, NextProtos: []string{acme.ALPNProto},
	})
	if err != nil {
		return nil, fmt.Errorf("tcp port %s is already used by another program: %w", s.conf["Le_TLSPort"], err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if c, ok := conn.(*tls.Conn); ok {
				_ = c.HandshakeContext(ctx)
			}
			_ = conn.Close()
		}
	}()
	return func() { _ = l.Close() }, nil
}

// listen answers on the port for standalone.
func (s *standIn) listen(ctx context.Context, c *acme.Challenge) (func(), error) {
	answer, err := s.acme.HTTP01ChallengeResponse(c.Token)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:"+s.conf["Le_HTTPPort"])
	if err != nil {
		return nil, fmt.Errorf("tcp port %s is already used by another program: %w", s.conf["Le_HTTPPort"], err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, answer)
	})}
	go func() { _ = server.Serve(l) }()
	return func() { _ = server.Close() }, nil
}
