package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitserve"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"certferry-agent": main})
}

// TestScript runs the real program; the scripts are its contract: sentences, exit codes, what stays on disk.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			closed := httptest.NewServer(http.NotFoundHandler())
			closed.Close()
			hub, root, err := startHub(env, closed.URL)
			if err != nil {
				return err
			}
			env.Setenv("HUB", hub.URL)
			env.Setenv("CLOSED", closed.URL)
			env.Setenv("ROOT", root)
			env.Setenv("STATE", filepath.Join(env.WorkDir, "state"))
			env.Setenv("CERTFERRY_AGENT_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			env.Setenv("CERTFERRY_AGENT_POLICY", filepath.Join(env.WorkDir, "policy.yaml"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits runs a program and checks its exit code: exits CODE program args...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// everybody with the credential sees an empty repository.
type everybody struct{}

func (everybody) Authorize(_ context.Context, _, password string) (gitserve.Grant, error) {
	if password != "cfa_credential" {
		return gitserve.Grant{}, gitserve.ErrDenied
	}
	return gitserve.Grant{Name: "web-1", Refs: []string{"refs/heads/servers/web-1"}}, nil
}

// startHub starts a hub that knows one join token and has nothing for anybody yet. The server called offline is told
// a Git remote at closed.
func startHub(env *testscript.Env, closed string) (server *httptest.Server, rootFingerprint string, err error) {
	root, err := seal.Generate("root", time.Now().Add(-time.Hour))
	if err != nil {
		return nil, "", err
	}
	armored, err := root.Public().Armor()
	if err != nil {
		return nil, "", err
	}
	repo, err := gitrepo.Open(filepath.Join(env.WorkDir, ".repo"), gitrepo.Options{
		Sign: func([]byte) ([]byte, error) { return nil, errors.New("nothing is written here") }, Now: time.Now,
	})
	if err != nil {
		return nil, "", err
	}
	env.Defer(func() { _ = repo.Close() })
	mux := http.NewServeMux()
	server = httptest.NewServer(mux)
	env.Defer(server.Close)
	mux.Handle("/git/certferry.git/", http.StripPrefix("/git/certferry.git", gitserve.New(gitserve.Config{Repo: repo, Access: everybody{}, Logger: slog.New(slog.DiscardHandler)})))
	mux.HandleFunc("POST /api/v1/servers/register", func(w http.ResponseWriter, r *http.Request) {
		var in apiv1.RegisterRequest
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Token != "cfj_good" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(apiv1.Problem{Status: http.StatusForbidden, Title: "Forbidden", Detail: "The join token is used or expired."})
			return
		}
		gitURL := server.URL
		if in.Name == "offline" {
			gitURL = closed
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(apiv1.Registration{
			Server: in.Name, Credential: "cfa_credential", State: "pending", RepoID: "repo-1",
			GitURL: gitURL + "/git/certferry.git", RootKey: string(armored),
		})
	})
	mux.HandleFunc("POST /api/v1/servers/rotate-key", func(w http.ResponseWriter, r *http.Request) {
		var in apiv1.OfferKeyRequest
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Signature == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(apiv1.OfferedKey{State: "pending"})
	})
	return server, root.Fingerprint(), nil
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for want, errs := range map[int][]error{
		exitUsage:       {usagef("x")},
		exitNothingToDo: {daemon.ErrNothingToDo},
		exitNotAllowed: {
			agent.ErrNotAllowed, &client.Error{Status: 401}, &client.Error{Status: 403}, errors.Join(daemon.ErrUnreachable, daemon.ErrDenied),
		},
		exitUnreachable: {daemon.ErrUnreachable, client.ErrUnreachable},
		exitFailed:      {daemon.ErrDeployment, daemon.ErrNotEnrolled, errors.New("x"), &client.Error{Status: 500}},
	} {
		for _, err := range errs {
			if got := exitCode(err); got != want {
				t.Errorf("%v: exit code %d, want %d", err, got, want)
			}
		}
	}
}
