package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/certferry/certferry/hub/daemon"
)

func keyCommand() *cli.Command {
	return parent(&cli.Command{
		Name: "key", Usage: "the hub's keys",
		Subcommands: []*cli.Command{
			leaf(&cli.Command{Name: "ls", Usage: "list the hub's keys, present and former", Action: listKeys}, 0),
			leaf(&cli.Command{
				Name: "export", Usage: "print the public keys for gpg --import",
				Description: "With the root and signing keys, git verify-commit checks every commit. With the secret escrow key,\n" +
					"gpg --decrypt opens every bundle on main, private keys and all.",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "escrow-secret", Usage: "print the SECRET escrow key instead"},
					&cli.BoolFlag{Name: "yes-print-the-secret", Usage: "confirm --escrow-secret"},
				},
				Action: exportKeys,
			}, 0),
			leaf(&cli.Command{
				Name: "rotate", Usage: "replace, while the hub is stopped, the signing key",
				Description: "Agents pin the root key only: they take the new key from their branch by themselves. Without the root key\n" +
					"at hand, the new keyring waits to be signed where that key is, by certferry-hub key sign-keyring.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "root-key", Usage: "the root key's `FILE`; keys/root.key in data_dir by default"},
					&cli.BoolFlag{Name: "compromised", Usage: "somebody else has the hub's keys: replace the escrow key too, and trust nothing that they sign"},
				},
				Action: rotateKey,
			}, 0),
			leaf(&cli.Command{
				Name: "sign-keyring", Usage: "sign a keyring with the root key, on a machine that needs no hub", ArgsUsage: "KEYRING",
				Flags:  []cli.Flag{&cli.StringFlag{Name: "root-key", Usage: "the root key's `FILE`"}},
				Action: signKeyring,
			}, 1),
			leaf(&cli.Command{
				Name: "install", Usage: "put a signed keyring into force, while the hub is stopped", ArgsUsage: "KEYRING SIGNATURE",
				Action: installKeyring,
			}, 2),
			leaf(&cli.Command{
				Name: "protect", Usage: "put the hub's keys under a passphrase, while the hub is stopped",
				Description: "The hub asks for it at each start, on the terminal or in the file of key_passphrase_file. Give it twice on the\n" +
					"terminal, or once on standard input.",
				Action: protectKeys,
			}, 0),
			leaf(&cli.Command{
				Name: "unprotect", Usage: "take the passphrase from the hub's keys, while the hub is stopped", Action: unprotectKeys,
			}, 0),
		},
	})
}

func exportKeys(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	if c.Bool("escrow-secret") {
		if !c.Bool("yes-print-the-secret") {
			return usagef("export escrow key: whoever has it reads every private key on main: add --yes-print-the-secret if that is meant")
		}
		secret, err := daemon.ExportEscrowSecret(cfg, time.Now())
		if err != nil {
			return err
		}
		_, err = c.App.Writer.Write(secret)
		return err
	}
	keys, err := daemon.ExportPublicKeys(cfg, time.Now())
	if err != nil {
		return err
	}
	named := map[string]string{"root": string(keys.Root), "signing": string(keys.Signing), "escrow": string(keys.Escrow)}
	return render(c, named, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n%s\n%s", keys.Root, keys.Signing, keys.Escrow)
		return err
	})
}

func listKeys(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	version, keys, err := daemon.ListKeys(cfg, time.Now())
	if err != nil {
		return err
	}
	out := struct {
		Version uint64           `json:"keyring_version" yaml:"keyring_version"`
		Keys    []daemon.KeyInfo `json:"keys" yaml:"keys"`
	}{version, keys}
	return render(c, out, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, k := range keys {
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", k.Role, k.Fingerprint, k.State) // Flush tells
		}
		_, _ = fmt.Fprintf(table, "keyring version\t%d\n", version)
		return table.Flush()
	})
}

func rotateKey(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	r, err := daemon.RotateKey(cfg, daemon.RotateOptions{
		RootKey: c.String("root-key"), Compromised: c.Bool("compromised"),
		RootPassphrase: func() ([]byte, error) { return askPassphrase(c, "Passphrase of the root key: ") },
	}, time.Now)
	if err != nil {
		return err
	}
	return render(c, r, func(w io.Writer) error { return printRotation(w, r) })
}

func printRotation(w io.Writer, r daemon.Rotation) error {
	var out strings.Builder
	fmt.Fprintf(&out, "keyring version  %d\n", r.Version)
	for _, fingerprint := range r.Signing {
		fmt.Fprintf(&out, "signing key      %s\n", fingerprint)
	}
	for _, fingerprint := range r.Retired {
		fmt.Fprintf(&out, "former key       %s\n", fingerprint)
	}
	if !r.Installed {
		fmt.Fprintf(&out, `
Nothing has changed yet: the root key is not on this machine. Take this file to where it is:
  %[1]s
Sign it there, and bring the signature back beside it:
  certferry-hub key sign-keyring --root-key FILE keyring.json
Then put both into force here, while the hub is stopped:
  certferry-hub key install %[1]s %[1]s.sig
`, r.Keyring)
	} else {
		out.WriteString("\nThe new key is in force. Start the hub: each server takes it with its next state, by itself.\n")
	}
	if r.Compromised {
		out.WriteString("Whoever has the former keys reads every private key that was on main until now. Once the hub runs, renew each\n" +
			"certificate (certferry certificate renew NAME) and have its former one revoked.\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func signKeyring(c *cli.Context) error {
	file := c.Args().First()
	if c.String("root-key") == "" {
		return usagef("sign keyring: give the root key's file with --root-key")
	}
	ring, err := daemon.SignKeyring(c.String("root-key"), file, func() ([]byte, error) { return askPassphrase(c, "Passphrase of the root key: ") }, time.Now())
	if err != nil {
		return err
	}
	signed := struct {
		Signature string   `json:"signature" yaml:"signature"`
		RepoID    string   `json:"repo_id" yaml:"repo_id"`
		Version   uint64   `json:"version" yaml:"version"`
		Keys      []string `json:"keys" yaml:"keys"`
	}{file + ".sig", ring.RepoID, ring.Version, nil}
	for _, k := range ring.Keys {
		signed.Keys = append(signed.Keys, k.Fingerprint)
	}
	return render(c, signed, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "signature        %s\nrepository       %s\nkeyring version  %d\nsigning key      %s\n",
			signed.Signature, signed.RepoID, signed.Version, strings.Join(signed.Keys, "\n                 "))
		return err
	})
}

func installKeyring(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	r, err := daemon.InstallKeyring(cfg, c.Args().Get(0), c.Args().Get(1), time.Now)
	if err != nil {
		return err
	}
	return render(c, r, func(w io.Writer) error { return printRotation(w, r) })
}

func protectKeys(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	passphrase, err := newPassphrase(c)
	if err != nil {
		return err
	}
	if err := daemon.ProtectKeys(cfg, passphrase, time.Now); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, "The hub's keys are under the passphrase now. Without it nothing opens them: keep it where the hub is not.")
	return err
}

func unprotectKeys(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	if err := daemon.UnprotectKeys(cfg, time.Now); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, "The hub's keys need no passphrase any more: whoever reads the disk or a backup of it has them.")
	return err
}

// newPassphrase asks for a passphrase to be: twice on a terminal, where nobody sees what was typed.
func newPassphrase(c *cli.Context) ([]byte, error) {
	first, err := askSecret(c, "New passphrase: ")
	if err != nil {
		return nil, err
	}
	if _, terminal := terminalOf(c); !terminal {
		return first, nil
	}
	again, err := askSecret(c, "Once more: ")
	if err == nil && !bytes.Equal(first, again) {
		err = usagef("read passphrase: the two are not the same")
	}
	return first, err
}

// askPassphrase asks on the terminal only: standard input may be anything else.
func askPassphrase(c *cli.Context, prompt string) ([]byte, error) {
	if _, terminal := terminalOf(c); !terminal {
		return nil, errors.New("nobody is there to ask: set key_passphrase_file, or run this on a terminal")
	}
	return askSecret(c, prompt)
}

func terminalOf(c *cli.Context) (*os.File, bool) {
	file, ok := c.App.Reader.(*os.File)
	return file, ok && term.IsTerminal(int(file.Fd()))
}

// askSecret asks on a terminal and reads a line elsewhere.
func askSecret(c *cli.Context, prompt string) ([]byte, error) {
	if file, terminal := terminalOf(c); terminal {
		_, _ = fmt.Fprint(c.App.ErrWriter, prompt)
		line, err := term.ReadPassword(int(file.Fd()))
		_, _ = fmt.Fprintln(c.App.ErrWriter)
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		return line, nil
	}
	line, err := bufio.NewReader(io.LimitReader(c.App.Reader, 4096)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
