package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
	"github.com/certferry/certferry/hub/daemon"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"certferry": func() { os.Exit(run()) }})
}

// notices keeps what a hub tells whoever started it.
type notices struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (n *notices) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.Write(p)
}

func (n *notices) after(prefix string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for line := range strings.Lines(n.buf.String()) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// TestScripts runs the program against a real hub: each script has one of its own at $HUB, whose setup code is the
// file setup-code.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               startHub,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":     checkCode,
			"join":     join,
			"await":    await,
			"takehash": takeHash,
		},
	})
}

func startHub(env *testscript.Env) error {
	dir := filepath.Join(env.WorkDir, "hub")
	cfg := daemon.Config{DataDir: dir, Listen: "127.0.0.1:0", ReconcileInterval: 100 * time.Millisecond}
	if _, err := daemon.Init(context.Background(), cfg, time.Now); err != nil {
		return err
	}
	said := &notices{}
	hub, err := daemon.New(context.Background(), cfg, daemon.Options{
		Version: "test", Logger: slog.New(slog.DiscardHandler), Notices: said, Now: time.Now,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	env.Defer(func() {
		stop()
		if err := <-done; err != nil {
			env.T().Log(err)
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for said.after("setup code: ") == "" {
		<-tick.C
	}
	env.Setenv("HUB", hub.URL())
	env.Setenv("CERTFERRY_SESSION", filepath.Join(env.WorkDir, "session.json"))
	return os.WriteFile(filepath.Join(env.WorkDir, "setup-code"), []byte(said.after("setup code: ")+"\n"), 0o600)
}

// checkCode runs a program that must end with a given code: code N program args.
func checkCode(ts *testscript.TestScript, _ bool, args []string) {
	want := args[0]
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != want {
		ts.Fatalf("exit code %s, want %s", got, want)
	}
}

// join registers a server as its agent would: join NAME JSON-FILE-WITH-TOKEN. The fingerprint goes to the file
// fingerprint and the variable FPR.
func join(ts *testscript.TestScript, _ bool, args []string) {
	token := ""
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), `"token": "`); ok {
			token = strings.Trim(rest, `",`)
		}
	}
	key, err := seal.Generate(args[0], time.Now())
	ts.Check(err)
	public, err := key.Public().Armor()
	ts.Check(err)
	c, err := client.New(client.Config{BaseURL: ts.Getenv("HUB")})
	ts.Check(err)
	_, err = c.Register(context.Background(), apiv1.RegisterRequest{Token: token, Name: args[0], PublicKey: string(public)})
	ts.Check(err)
	ts.Setenv("FPR", key.Fingerprint())
}

// await runs a program again and again until its output holds a text: await TEXT program args.
func await(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q did not come", args[0])
		}
		<-tick.C
	}
}

// takeHash sets a variable to the first hash in the JSON of a program's output: takehash FILE NAME.
func takeHash(ts *testscript.TestScript, _ bool, args []string) {
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), `"hash": "`); ok {
			ts.Setenv(args[1], strings.Trim(rest, `",`))
			return
		}
	}
	ts.Fatalf("there is no hash in %s", args[0])
}
