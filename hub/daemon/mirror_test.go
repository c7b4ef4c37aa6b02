package daemon

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
	"github.com/certferry/certferry/internal/githost"
)

func TestRemotesOfTheConfiguration(t *testing.T) {
	t.Parallel()
	got, err := LoadConfig(writeConfig(t, `
remotes:
  - name: github
    url: ssh://git@github.com/example/fleet.git
    ssh_key: /etc/certferry/github.key
    known_hosts: /etc/certferry/known_hosts
    intent: true
  - {name: backup, url: "https://git.example.com/fleet.git", username: hub, password_file: /etc/certferry/backup.password, ca_file: /etc/certferry/ca.pem}
`), true, nil)
	if err != nil || len(got.Remotes) != 2 || !got.Remotes[0].Intent || got.Remotes[1].PasswordFile != "/etc/certferry/backup.password" {
		t.Fatalf("%+v, %v", got.Remotes, err)
	}
	for text, want := range map[string]string{
		"{url: 'https://h/x'}":                      "remotes[0].name",
		"{name: 'A b', url: 'https://h'}":           "remotes[0].name",
		"{name: a, url: 'https://h/x', passwrd: x}": `unknown key "passwrd"`,
		"{name: a}":                                                              "remotes[0].url: must be an address",
		"{name: a, url: 'ftp://h/x'}":                                            "remotes[0].url: must start with",
		"{name: a, url: 'http://h/x'}":                                           "remotes[0].url: plain http",
		"{name: a, url: 'https://u:p@h/x'}":                                      "remotes[0].url: must not hold",
		"{name: a, url: 'https://u@h/x'}":                                        "remotes[0].url: must not hold",
		"{name: a, url: 'ssh://u:p@h/x'}":                                        "remotes[0].url: must not hold",
		"{name: a, url: 'ssh://u@h/x'}":                                          "remotes[0].ssh_key: an ssh URL needs",
		"{name: a, url: 'git@h:x'}":                                              "remotes[0].url: must be an address",
		"{name: a, url: 'ssh://h/', ssh_key: /k, known_hosts: /h}":               "remotes[0].url: the remote's URL is not valid",
		"{name: a, url: 'ssh://h/x', ssh_key: k, known_hosts: /h}":               "remotes[0].ssh_key: must be an absolute path",
		"{name: a, url: 'ssh://h/x', ssh_key: /k, known_hosts: /h, username: x}": "remotes[0].url: username, password_file",
		"{name: a, url: 'https://h/x', ssh_key: /k}":                             "remotes[0].ssh_key: ssh_key and known_hosts",
		"{name: a, url: 'https://h/x', username: x}":                             "remotes[0].password_file: username needs it",
		"{name: a, url: 'https://h/x'}, {name: a, url: 'https://h/y'}":           "remotes[1].name: another remote has this name",
	} {
		if _, err := LoadConfig(writeConfig(t, "remotes: ["+text+"]\n"), true, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := LoadConfig(writeConfig(t, ""), true, []string{"CERTFERRY_HUB_REMOTES=x"}); err == nil || !strings.Contains(err.Error(), "write it into the file") {
		t.Errorf("remotes by environment: %v", err)
	}
}

// TestSecretsOfRemotesAreChecked: a mistake shows when the hub starts, without the secret.
func TestSecretsOfRemotesAreChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	known := file("known", "", 0o600)
	for want, s := range map[string]gitrepo.RemoteSettings{
		"open to other users (mode 644)": {PasswordFile: file("open", "sesame", 0o644)},
		"first line is empty":            {PasswordFile: file("empty", "\nsesame", 0o600)},
		"no such file":                   {PasswordFile: filepath.Join(dir, "absent")},
		"holds no PEM":                   {CAFile: file("ca", "sesame", 0o600)},
		"it is open to other users":      {SSHKey: file("openkey", "sesame", 0o640), KnownHosts: known},
		"not a private key":              {SSHKey: file("badkey", "sesame", 0o600), KnownHosts: known},
	} {
		s.URL = "https://git.example.com/x"
		if s.SSHKey != "" {
			s.URL = "ssh://git.example.com/x"
		}
		if _, err := s.Remote(gitrepo.DefaultLimits); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
}

// TestHubKeepsARemote: main and servers arrive at a stock host; a stranger's commit there is refused, told, and both
// have one history again.
func TestHubKeepsARemote(t *testing.T) {
	t.Parallel()
	host := githost.Start(t, true)
	dir, url := host.Create(t, "fleet.git")
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(githost.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _ := initialised(t)
	cfg.Remotes = []RemoteConfig{{Name: "backup", Intent: true, RemoteSettings: gitrepo.RemoteSettings{
		URL: url, Username: githost.Writer, PasswordFile: secret, CAFile: host.CAFile,
	}}}
	h, notices, _, stop := running(t, cfg)
	c := admin(t, h.URL(), setupCode(t, notices))
	state := func() apiv1.Remote {
		list, err := c.Remotes(t.Context(), client.Page{})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("remotes: %+v %v", list, err)
		}
		return list.Items[0]
	}
	await(t, "the first push", func() bool { return state().State == "current" })
	if r := state(); r.URL != url || r.Behind != 0 || r.LastOK == nil || !r.Intent {
		t.Errorf("remote %+v", r)
	}

	clone := filepath.Join(t.TempDir(), "clone")
	git := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=p", "GIT_AUTHOR_EMAIL=p@e", "GIT_COMMITTER_NAME=p", "GIT_COMMITTER_EMAIL=p@e")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("clone", "-q", dir, clone)
	if err := os.WriteFile(filepath.Join(clone, "README.md"), []byte("unsigned\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	git("-C", clone, "add", ".")
	git("-C", clone, "commit", "-q", "-m", "a stranger's wish")
	git("-C", clone, "push", "-q", "origin", "main")
	theirs := git("-C", clone, "rev-parse", "HEAD")
	_ = stop() // a start looks at once, where a running hub looks once a minute
	h, _, log, _ := running(t, cfg)
	c2, err := client.New(client.Config{BaseURL: h.URL(), Session: &client.Session{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c2.Login(t.Context(), "ada", "an engine of the mind"); err != nil {
		t.Fatal(err)
	}
	c = c2
	await(t, "the merge", func() bool { return state().State == "current" })
	if tip := git("-C", dir, "rev-parse", "main"); tip == theirs {
		t.Error("the stranger's commit stands as main")
	}
	git("-C", dir, "merge-base", "--is-ancestor", theirs, "main")
	alerts, err := c.Alerts(t.Context(), false, client.Page{})
	if err != nil || len(alerts.Items) != 1 || alerts.Items[0].Kind != "intent_refused" || alerts.Items[0].Object != "backup" {
		t.Errorf("alerts %+v %v", alerts.Items, err)
	}
	if strings.Contains(log.String(), githost.Password) {
		t.Error("the log holds the password")
	}
}
