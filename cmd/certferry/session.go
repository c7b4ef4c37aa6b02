// This file keeps who is logged in, and asks for what must not stand on a command line.

package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// errNotLoggedIn: no session is stored and no token is given.
var errNotLoggedIn = errors.New("not logged in: run certferry login --hub URL")

// stored is the session file: the login and the hub it belongs to.
type stored struct {
	Hub     string         `json:"hub"`
	CAFile  string         `json:"ca_file,omitempty"`
	Session client.Session `json:"session"`
}

func sessionPath(c *cli.Context) (string, error) {
	if path := c.String("session"); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find configuration folder: %w; give --session FILE", err)
	}
	return filepath.Join(dir, "certferry", "session.json"), nil
}

func loadSession(path string) (stored, error) {
	var s stored
	data, err := os.ReadFile(path) //nolint:gosec // the path is the operator's
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read session: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read session %s: it is damaged; log in again", path)
	}
	return s, nil
}

// saveSession replaces the file in one step; a logout removes it.
func saveSession(path string, s stored) error {
	if s.Session == (client.Session{}) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".session-*") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}

// connect returns a client for the hub that is logged in to, or named by --hub. CERTFERRY_TOKEN takes the place of
// a login, for scripts.
func connect(c *cli.Context, login bool) (*client.Client, error) {
	path, err := sessionPath(c)
	if err != nil {
		return nil, err
	}
	s, err := loadSession(path)
	if err != nil && !login {
		return nil, err
	}
	if hub := strings.TrimSuffix(c.String("hub"), "/"); hub != "" && hub != s.Hub {
		s = stored{Hub: hub}
	}
	if c.IsSet("ca-file") {
		if s.CAFile, err = filepath.Abs(c.String("ca-file")); err != nil {
			return nil, err
		}
	}
	if s.Hub == "" {
		return nil, usageError{errors.New("find hub: give --hub URL or set CERTFERRY_HUB")}
	}
	cfg := client.Config{
		BaseURL: s.Hub, UserAgent: "certferry/" + version,
		OnSession: func(now client.Session) error {
			s.Session = now
			return saveSession(path, s)
		},
	}
	if cfg.TLS, err = tlsConfig(s.CAFile); err != nil {
		return nil, err
	}
	switch token := os.Getenv("CERTFERRY_TOKEN"); {
	case token != "":
		cfg.Token = client.Static(token)
	case s.Session != (client.Session{}):
		cfg.Session = &s.Session
	case !login:
		return nil, errNotLoggedIn
	}
	return client.New(cfg)
}

func tlsConfig(caFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return config, nil
	}
	data, err := os.ReadFile(caFile) //nolint:gosec // the path is the operator's
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("read CA file %s: it holds no PEM certificate", caFile)
	}
	return config, nil
}

// asker reads secrets from a terminal without showing them, or line by line from a pipe.
type asker struct {
	in    io.Reader
	lines *bufio.Reader
	out   io.Writer
}

func newAsker(c *cli.Context) *asker {
	return &asker{in: c.App.Reader, lines: bufio.NewReader(io.LimitReader(c.App.Reader, 64<<10)), out: c.App.ErrWriter}
}

// terminal is the terminal that answers come from, where they do.
func (a *asker) terminal() (fd int, ok bool) {
	file, ok := a.in.(*os.File)
	if !ok {
		return 0, false
	}
	return int(file.Fd()), term.IsTerminal(int(file.Fd()))
}

// say tells a person at a terminal something; programs that answer are not disturbed.
func (a *asker) say(text string) {
	if _, ok := a.terminal(); ok {
		_, _ = fmt.Fprintln(screen{a.out}, text)
	}
}

// ask asks for what by the prompt. A secret is not shown.
func (a *asker) ask(what, prompt string, secret bool) (string, error) {
	fd, terminal := a.terminal()
	if terminal {
		_, _ = fmt.Fprint(screen{a.out}, prompt+": ")
	}
	if terminal && secret {
		data, err := term.ReadPassword(fd)
		_, _ = fmt.Fprintln(a.out)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", what, err)
		}
		return string(data), nil
	}
	line, err := a.lines.ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", usageError{fmt.Errorf("read %s: give it on standard input", what)}
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func setupCommand() *cli.Command {
	return &cli.Command{
		Name: "setup", Usage: "make the first administrator with the hub's one-time setup code",
		Description: "Setup code and password are asked for on a terminal, or read as two lines from standard input.",
		Flags:       []cli.Flag{&cli.StringFlag{Name: "name", Required: true, Usage: "`NAME` of the administrator"}},
		Action: func(c *cli.Context) error {
			a := newAsker(c)
			code, err := a.ask("setup code", "Setup code", true)
			if err != nil {
				return err
			}
			password, err := a.ask("password", "Password", true)
			if err != nil {
				return err
			}
			hub, err := connect(c, true)
			if err != nil {
				return err
			}
			session, err := hub.Setup(c.Context, apiv1.SetupRequest{Code: code, Name: c.String("name"), Password: password})
			if err != nil {
				return fmt.Errorf("set up hub: %w", err)
			}
			return loggedIn(c, session)
		},
	}
}

func loginCommand() *cli.Command {
	return &cli.Command{
		Name: "login", Usage: "log in to a hub",
		Description: "The password is asked for on a terminal, or read from standard input.",
		Flags:       []cli.Flag{&cli.StringFlag{Name: "name", Required: true, Usage: "`NAME` of the account"}},
		Action: func(c *cli.Context) error {
			hub, err := connect(c, true)
			if err != nil {
				return err
			}
			password, err := newAsker(c).ask("password", "Password", true)
			if err != nil {
				return err
			}
			session, err := hub.Login(c.Context, c.String("name"), password)
			if err != nil {
				return fmt.Errorf("log in as %s: %w", c.String("name"), err)
			}
			return loggedIn(c, session)
		},
	}
}

func loggedIn(c *cli.Context, s apiv1.Session) error {
	return render(c, s.User, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "logged in as %s (%s)\n", s.User.Name, s.User.Role)
	})
}

func logoutCommand() *cli.Command {
	return &cli.Command{
		Name: "logout", Usage: "end the login, at the hub and here",
		Action: func(c *cli.Context) error {
			hub, err := connect(c, false)
			if err != nil {
				return err
			}
			return hub.Logout(c.Context)
		},
	}
}
