package gitrepo_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// gitea is a real Gitea (or Forgejo) with an account, a repository and a token.
type gitea struct {
	t                   *testing.T
	dir, url, ssh, name string
	program             string
	token               string
}

// startGitea runs the program that the environment variable GITEA names; GITEA_STATIC is the folder of its templates
// where they are not built in. Gitea does not run as root.
func startGitea(t *testing.T) *gitea {
	t.Helper()
	program := os.Getenv("GITEA")
	if program == "" {
		t.Skip("skipped: GITEA does not name a Gitea or Forgejo program")
	}
	dir, err := os.MkdirTemp("", "certferry-gitea-") //nolint:usetesting // another user must be able to enter it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &gitea{t: t, dir: dir, program: program, name: "nobody", url: "http://" + freeAddress(t), ssh: freeAddress(t)}
	if os.Geteuid() != 0 {
		g.name = os.Getenv("USER")
	}
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(g.url, "http://"))
	_, sshPort, _ := net.SplitHostPort(g.ssh)
	config := fmt.Sprintf(`RUN_MODE = prod
RUN_USER = %[1]s
WORK_PATH = %[2]s
[server]
STATIC_ROOT_PATH = %[3]s
HTTP_ADDR = 127.0.0.1
HTTP_PORT = %[4]s
ROOT_URL = %[5]s/
START_SSH_SERVER = true
SSH_LISTEN_HOST = 127.0.0.1
SSH_LISTEN_PORT = %[6]s
BUILTIN_SSH_SERVER_USER = git
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
PATH = %[2]s/gitea.db
[security]
INSTALL_LOCK = true
[log]
LEVEL = error
MODE = console
[repository]
ROOT = %[2]s/repos
DEFAULT_BRANCH = main
`, g.name, dir, os.Getenv("GITEA_STATIC"), port, g.url, sshPort)
	if err := os.WriteFile(filepath.Join(dir, "app.ini"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		for _, path := range []string{dir, filepath.Join(dir, "app.ini")} { // which it writes its secrets to
			if err := os.Chown(path, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	g.run("migrate")
	g.run("admin", "user", "create", "--username", "hub", "--password", "correct-horse-1", "--email", "hub@example.com", "--must-change-password=false", "--admin")
	web := g.command("web")
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = web.Process.Kill(); _ = web.Wait() })
	g.await(strings.TrimPrefix(g.url, "http://"))
	g.await(g.ssh)
	var token struct {
		SHA1 string `json:"sha1"`
	}
	g.api("/users/hub/tokens", map[string]any{"name": "t", "scopes": []string{"write:repository", "write:user"}}, &token)
	g.token = token.SHA1
	return g
}

const nobody = 65534

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (g *gitea) command(args ...string) *exec.Cmd {
	cmd := exec.Command(g.program, append([]string{"--config", filepath.Join(g.dir, "app.ini")}, args...)...)
	cmd.Dir = g.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + g.dir, "USER=" + g.name}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

func (g *gitea) run(args ...string) {
	g.t.Helper()
	if out, err := g.command(args...).CombinedOutput(); err != nil {
		g.t.Fatalf("gitea %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (g *gitea) await(address string) {
	g.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("gitea does not listen at %s", address)
		}
		<-tick.C
	}
}

func (g *gitea) api(path string, in, out any) {
	g.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		g.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(g.t.Context(), http.MethodPost, g.url+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.SetBasicAuth("hub", "correct-horse-1")
	req.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode > 299 {
		g.t.Fatalf("POST %s: %d %s %v", path, answer.StatusCode, data, err)
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			g.t.Fatal(err)
		}
	}
}

// remotes makes a repository and the ways to it: with a token, and with ssh keys that may write and only read.
func (g *gitea) remotes(name string) (byToken, bySSH, readOnly *gitrepo.Remote) {
	g.t.Helper()
	g.api("/user/repos", map[string]any{"name": name, "private": true}, nil)
	byToken = &gitrepo.Remote{URL: g.url + "/hub/" + name + ".git", Username: "git", Password: g.token, Limits: gitrepo.PushLimits}
	known := filepath.Join(g.t.TempDir(), "known_hosts")
	config := &ssh.ClientConfig{User: "git", HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
		return os.WriteFile(known, []byte(knownhosts.Line([]string{knownhosts.Normalize(g.ssh)}, key)+"\n"), 0o600)
	}}
	if c, err := ssh.Dial("tcp", g.ssh, config); err == nil {
		_ = c.Close()
	}
	key := func(mayWrite bool) *gitrepo.Remote {
		path := filepath.Join(g.t.TempDir(), "key")
		public := newKey(g.t, path)
		g.api("/repos/hub/"+name+"/keys", map[string]any{"title": path, "key": string(ssh.MarshalAuthorizedKey(public)), "read_only": !mayWrite}, nil)
		auth, err := gitrepo.NewSSH(path, known)
		if err != nil {
			g.t.Fatal(err)
		}
		return &gitrepo.Remote{URL: "ssh://git@" + g.ssh + "/hub/" + name + ".git", SSH: auth, Limits: gitrepo.PushLimits}
	}
	return byToken, key(true), key(false)
}

// TestGitea takes a fleet to a real Gitea by token and by ssh key, and what a person commits there back.
func TestGitea(t *testing.T) {
	t.Parallel()
	g := startGitea(t)
	byToken, bySSH, readOnly := g.remotes("fleet")
	r := openRepo(t, t.TempDir())
	fleet(t, r, 50, "one")
	push(t, byToken, r)
	fleet(t, r, 50, "two")
	push(t, bySSH, r)
	for _, remote := range []*gitrepo.Remote{byToken, bySSH, readOnly} {
		tip, err := remote.Poll(t.Context(), "refs/heads/servers/web-7", "")
		if want := mustRef(t, r, "refs/heads/servers/web-7"); err != nil || tip.Hash != want {
			t.Fatalf("poll: %+v %v", tip, err)
		}
		got, err := remote.Fetch(t.Context(), "refs/heads/servers/web-7", tip.Hash)
		if err != nil || string(got.Files["bundles/a.pgp"]) != "two" {
			t.Fatalf("fetch: %v", err)
		}
	}
	g.api("/repos/hub/fleet/contents/certificates/p.yaml", map[string]any{"branch": "main", "content": "cGVvcGxl", "message": "a wish"}, nil)
	there, err := bySSH.List(t.Context(), mainRef)
	if err != nil {
		t.Fatal(err)
	}
	in, err := byToken.FetchHistory(t.Context(), r, there[mainRef], []gitrepo.Hash{mustRef(t, r, mainRef)})
	if err != nil || in.Len() != 4 {
		t.Fatalf("history: %v", err)
	}
	if data, err := in.ReadFile(there[mainRef], "certificates/p.yaml"); err != nil || string(data) != "people" {
		t.Errorf("read %q %v", data, err)
	}

	g.api("/repos/hub/fleet/branch_protections", map[string]any{"rule_name": "servers/web-1", "enable_push": false}, nil)
	fleet(t, r, 3, "three")
	var updates []gitrepo.RefUpdate
	for n := range 3 {
		ref := fmt.Sprintf("refs/heads/servers/web-%d", n)
		at, err := byToken.Poll(t.Context(), ref, "")
		if err != nil {
			t.Fatal(err)
		}
		updates = append(updates, gitrepo.RefUpdate{Ref: ref, Old: at.Hash, New: mustRef(t, r, ref)})
	}
	for name, tt := range map[string]struct {
		remote *gitrepo.Remote
		want   []error
	}{
		"protected branch":    {byToken, []error{gitrepo.ErrRejected}},
		"a key that may read": {readOnly, []error{gitrepo.ErrReadOnly, gitrepo.ErrDenied}},
		"no repository":       {&gitrepo.Remote{URL: byToken.URL + "x", Username: "git", Password: g.token, Limits: gitrepo.PushLimits}, []error{gitrepo.ErrNoRepository, gitrepo.ErrReadOnly}},
		"wrong token":         {&gitrepo.Remote{URL: byToken.URL, Username: "git", Password: "wrong", Limits: gitrepo.PushLimits}, []error{gitrepo.ErrDenied}},
	} {
		results, err := tt.remote.Push(t.Context(), r, updates, true)
		if err == nil {
			err = errors.Join(results[0].Err, results[1].Err, results[2].Err)
		}
		matched := false
		for _, class := range tt.want {
			matched = matched || errors.Is(err, class)
		}
		if !matched {
			t.Errorf("%s: %v, want one of %v", name, err, tt.want)
		}
		t.Logf("%s: %v", name, err)
	}
}
