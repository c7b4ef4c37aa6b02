package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"certferry-hub": main})
}

// TestScript runs the real program; the scripts are its contract: sentences, exit codes, what stays on disk.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			listen, err := freeAddress()
			if err != nil {
				return err
			}
			env.Setenv("LISTEN", listen)
			env.Setenv("ACME_SH", os.Getenv("ACME_SH"))
			env.Setenv("CERTFERRY_HUB_DATA_DIR", filepath.Join(env.WorkDir, "hub"))
			env.Setenv("CERTFERRY_HUB_LISTEN", listen)
			return nil
		},
		Condition: func(condition string) (bool, error) {
			return condition == "acmesh" && os.Getenv("ACME_SH") != "" || condition == "root" && os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "healthy": healthy, "mode": mode},
	})
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
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

// healthy waits until a hub answers at the address.
func healthy(ts *testscript.TestScript, _ bool, args []string) {
	c := &http.Client{Timeout: time.Second}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for {
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+args[0]+"/healthz", http.NoBody)
		ts.Check(err)
		response, err := c.Do(request)
		if err == nil {
			ts.Check(response.Body.Close())
			return
		}
		select {
		case <-deadline.C:
			ts.Fatalf("no hub at %s: %v", args[0], err)
		case <-tick.C:
		}
	}
}

// mode checks the mode of a file: mode 600 file.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// hubRun runs a command line in this process.
func hubRun(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"certferry-hub"}, args...), strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// urfave/cli keeps its help flag in a variable of its package, so command lines in this process run one by one.
func TestCommands(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "hub.yaml")
	text := "data_dir: " + filepath.Join(dir, "hub") + "\nlisten: 127.0.0.1:0\nreconcile_interval: 1s\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		stdin  string
		args   string
		code   int
		output string
	}{
		{"", "version", 0, "dev\n"},
		{"", "--help", 0, "certferry-hub"},
		{"", "", 0, "serve"},
		{"", "key", 0, "export"},
		{"", "sing", 2, "none of that name"},
		{"", "user sing", 2, "none of that name"},
		{"", "--output xml version", 2, "table, json or yaml"},
		{"", "serve --loud", 2, "flag provided but not defined"},
		{"", "version now", 2, "takes 0, not 1"},
		{"", "user add", 2, "takes 1, not 0"},
		{"", "user add ada --role admin", 2, "flags stand before arguments: certferry-hub user add [FLAGS] NAME"},
		{"", "acme import there --home x", 2, "flags stand before arguments"},
		{"", "acme import", 2, "give --home"},
		{"", "privateca export-root internal --config x", 2, "flags stand before arguments"},
		{"", "privateca renew-intermediate a b", 2, "takes 1, not 2"},
		{"", "issuer add --help", 0, "certificates (default: 2160h)"},
		{"", "-c " + dir + "/absent.yaml config check", 1, "no such file"},
		{"", "-c CONFIG serve", 1, "certferry-hub init first"},
		{"", "-c CONFIG user ls", 1, "certferry-hub init first"},
		{"", "-c CONFIG key export", 1, "certferry-hub init first"},
		{"", "-c CONFIG store verify", 1, "certferry-hub init first"},
		{"", "-c CONFIG config check", 0, "workers"},
		{"", "-c CONFIG -o json config check", 0, `"reconcile_interval": "1s"`},
		{"", "config keys", 0, "CERTFERRY_HUB_DATA_DIR"},
		{"", "-o yaml config keys", 0, "data_dir: CERTFERRY_HUB_DATA_DIR"},
		{"", "-c CONFIG init", 0, "Move the root key offline"},
		{"", "-c CONFIG -o json init", 1, "never replaced"},
		{"", "-c CONFIG key export", 0, "BEGIN PGP PUBLIC KEY BLOCK"},
		{"", "-c CONFIG -o json key export", 0, `"signing": "-----BEGIN PGP`},
		{"", "-c CONFIG key export --escrow-secret", 2, "--yes-print-the-secret"},
		{"", "-c CONFIG key export --escrow-secret --yes-print-the-secret", 0, "BEGIN PGP PRIVATE KEY BLOCK"},
		{"", "-c CONFIG store verify", 0, "faults        0"},
		{"", "-c CONFIG -o json store verify", 0, `"certificates": 0`},
		{"", "-c CONFIG user add ada", 2, "first line of standard input"},
		{"short\n", "-c CONFIG user add ada", 2, "password"},
		{"an engine of the mind\n", "-c CONFIG user add --role king ada", 2, "must be viewer, operator or admin"},
		{"an engine of the mind", "-c CONFIG user add --role admin ada", 0, "account ada made"},
		{"an engine of the mind\n", "-c CONFIG user add ada", 1, "exists already"},
		{"another engine of mind\n", "-c CONFIG user passwd ada", 0, "password of ada replaced"},
		{"another engine of mind\n", "-c CONFIG user passwd bob", 1, "there is no account of this name"},
		{"", "-c CONFIG user ls", 0, "ada   admin  active"},
		{"", "-c CONFIG -o yaml user ls", 0, "name: ada"},
	} {
		args := strings.Fields(strings.ReplaceAll(tc.args, "CONFIG", config))
		code, stdout, stderr := hubRun(t, tc.stdin, args...)
		if code != tc.code || !strings.Contains(stdout+stderr, tc.output) {
			t.Errorf("certferry-hub %s: exit code %d, want %d and %q\n%s%s", tc.args, code, tc.code, tc.output, stdout, stderr)
		}
	}
	if faults := filepath.Join(dir, "hub", "keys", "escrow.key"); os.Remove(faults) != nil {
		t.Error("no escrow key")
	}
	if code, _, stderr := hubRun(t, "", "-c", config, "key", "export", "--escrow-secret", "--yes-print-the-secret"); code != 1 {
		t.Errorf("export of a key that is gone: exit code %d\n%s", code, stderr)
	}
}

func TestServeEndsWhenTold(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "hub.yaml")
	if err := os.WriteFile(config, []byte("data_dir: "+filepath.Join(dir, "hub")+"\nlisten: 127.0.0.1:0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := hubRun(t, "", "-c", config, "init"); code != 0 {
		t.Fatal(stderr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	started := &signalWriter{to: &out, seen: make(chan struct{})}
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"certferry-hub", "-c", config, "serve"}, strings.NewReader(""), started, &errs)
	}()
	<-started.seen
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d\n%s", code, errs.String())
	}
	if !strings.HasPrefix(out.String(), "console: http://127.0.0.1:") {
		t.Errorf("output: %s", out.String())
	}
}

// signalWriter tells of the first write.
type signalWriter struct {
	to   *bytes.Buffer
	seen chan struct{}
	told bool
}

func (w *signalWriter) Write(p []byte) (int, error) {
	if !w.told {
		w.told = true
		close(w.seen)
	}
	return w.to.Write(p)
}
