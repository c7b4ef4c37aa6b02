package forge_test

import (
	"encoding/json"
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

	"github.com/certferry/certferry/hub/internal/forge"
)

// nobody owns a Gitea that root starts: it does not run as root.
const nobody = 65534

// realGitea is a Gitea (or Forgejo) at work.
type realGitea struct {
	t        *testing.T
	dir, url string
	command  func(args ...string) *exec.Cmd
}

// startGitea runs the program that the environment variable GITEA names; GITEA_STATIC is the folder of its templates
// where they are not built in.
func startGitea(t *testing.T) *realGitea {
	t.Helper()
	program := os.Getenv("GITEA")
	if program == "" {
		t.Skip("skipped: GITEA does not name a Gitea or Forgejo program; only stand-ins were asked")
	}
	dir, err := os.MkdirTemp("", "certferry-gitea-") //nolint:usetesting // another user must be able to enter it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(address)
	user := os.Getenv("USER")
	if os.Geteuid() == 0 {
		user = "nobody"
	}
	g := &realGitea{t: t, dir: dir, url: "http://" + address + "/api/v1"}
	g.command = func(args ...string) *exec.Cmd {
		cmd := exec.Command(program, append([]string{"--config", filepath.Join(dir, "app.ini")}, args...)...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "USER=" + user}
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		return cmd
	}
	g.configure(user, port)
	for _, args := range [][]string{
		{"migrate"},
		{"admin", "user", "create", "--username", "ops", "--password", "correct-horse-1", "--email", "ops@example.com", "--must-change-password=false", "--admin"},
	} {
		if out, err := g.command(args...).CombinedOutput(); err != nil {
			t.Fatalf("gitea %v: %v\n%s", args, err, out)
		}
	}
	web := g.command("web")
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = web.Process.Kill(); _ = web.Wait() })
	deadline, tick := time.Now().Add(time.Minute), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return g
		}
		if time.Now().After(deadline) {
			t.Fatal("gitea does not listen")
		}
		<-tick.C
	}
}

func (g *realGitea) configure(user, port string) {
	g.t.Helper()
	ini := fmt.Sprintf("RUN_MODE = prod\nRUN_USER = %s\nWORK_PATH = %s\n[server]\nSTATIC_ROOT_PATH = %s\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = %s\n"+
		"OFFLINE_MODE = true\nDISABLE_SSH = true\n[database]\nDB_TYPE = sqlite3\nPATH = %[2]s/gitea.db\n[security]\nINSTALL_LOCK = true\n"+
		"[log]\nLEVEL = error\nMODE = console\n[repository]\nROOT = %[2]s/repos\nDEFAULT_BRANCH = main\n", user, g.dir, os.Getenv("GITEA_STATIC"), port)
	path := filepath.Join(g.dir, "app.ini")
	if err := os.WriteFile(path, []byte(ini), 0o644); err != nil {
		g.t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return
	}
	for _, p := range []string{g.dir, path} { // which it writes its secrets to
		if err := os.Chown(p, nobody, nobody); err != nil {
			g.t.Fatal(err)
		}
	}
}

// api asks Gitea as its administrator.
func (g *realGitea) api(method, path, in string, out any) {
	g.t.Helper()
	request, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, strings.NewReader(in))
	if err != nil {
		g.t.Fatal(err)
	}
	request.SetBasicAuth("ops", "correct-horse-1")
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode > 299 {
		g.t.Fatalf("%s %s: %d %s %v", method, path, answer.StatusCode, data, err)
	}
	if err := json.Unmarshal(data, out); err != nil {
		g.t.Fatal(err)
	}
}

// TestRealGitea sets statuses on a real host and reads them back there.
func TestRealGitea(t *testing.T) {
	t.Parallel()
	g := startGitea(t)
	var made struct {
		SHA1 string `json:"sha1"`
	}
	g.api(http.MethodPost, "/users/ops/tokens", `{"name":"t","scopes":["write:repository"]}`, &made)
	g.api(http.MethodPost, "/user/repos", `{"name":"fleet","private":true,"auto_init":true,"default_branch":"main"}`, &struct{}{})
	var branch struct {
		Commit struct {
			ID string `json:"id"`
		} `json:"commit"`
	}
	g.api(http.MethodGet, "/repos/ops/fleet/branches/main", "", &branch)
	client := func(token string) *forge.Client {
		c, err := forge.New(forge.Config{Kind: forge.Gitea, API: g.url, Repository: "ops/fleet", TokenFile: tokenFile(t, token, 0o600)})
		if err != nil {
			t.Fatal(err)
		}
		return c.Hurry()
	}
	for _, state := range []forge.State{forge.Pending, forge.Success, forge.Failure} {
		if err := client(made.SHA1).Set(t.Context(), forge.Status{
			Commit: branch.Commit.ID, State: state, Description: "refused: a.yaml:3: no", TargetURL: "https://hub.example.com/commits/x",
		}); err != nil {
			t.Fatal(err)
		}
		var shown struct {
			State    string `json:"state"`
			Statuses []struct {
				Status      string `json:"status"`
				Context     string `json:"context"`
				Description string `json:"description"`
				TargetURL   string `json:"target_url"`
			} `json:"statuses"`
		}
		g.api(http.MethodGet, "/repos/ops/fleet/commits/"+branch.Commit.ID+"/status", "", &shown)
		if shown.State != string(state) || len(shown.Statuses) != 1 || shown.Statuses[0].Context != forge.Context ||
			shown.Statuses[0].Description != "refused: a.yaml:3: no" || shown.Statuses[0].TargetURL != "https://hub.example.com/commits/x" {
			t.Errorf("%s: Gitea shows %+v", state, shown)
		}
	}
	for token, want := range map[string]string{strings.Repeat("0", 40): "the token is not valid", made.SHA1: ""} {
		commit := branch.Commit.ID
		if want == "" {
			commit, want = strings.Repeat("0", 40), "the host answered"
		}
		if err := client(token).Set(t.Context(), forge.Status{Commit: commit, State: forge.Success}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), token) && token == made.SHA1 {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
