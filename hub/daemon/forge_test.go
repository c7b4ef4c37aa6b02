package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/hub/internal/forge"
	"github.com/certferry/certferry/hub/internal/intent"
)

func TestForgeOfTheConfiguration(t *testing.T) {
	t.Parallel()
	remote := func(forge string) string {
		return "remotes:\n  - name: a\n    url: https://git.example.com/ops/fleet.git\n    intent: true\n    forge: " + forge + "\n"
	}
	got, err := LoadConfig(writeConfig(t, remote("{kind: gitea, api: 'https://git.example.com/api/v1', repository: ops/fleet, token_file: /etc/certferry/token}")), true, nil)
	if err != nil || got.Remotes[0].Forge == nil || got.Remotes[0].Forge.Repository != "ops/fleet" {
		t.Fatalf("%+v, %v", got.Remotes, err)
	}
	for text, want := range map[string]string{
		"{kind: svn}":                           "remotes[0].forge: set up commit statuses: kind: must be",
		"{kind: github, repository: ops/fleet}": "token_file: is missing",
		"{kind: github, repository: ops/fleet, token_file: token}":             "token_file: must be an absolute path",
		"{kind: gitea, repository: ops/fleet, token_file: /t}":                 "api: must be",
		"{kind: github, repository: fleet, token_file: /t}":                    "repository: must be owner/name",
		"{kind: github, repository: ops/fleet, token_file: /t, token: sesame}": `unknown key "token"`,
	} {
		if _, err := LoadConfig(writeConfig(t, remote(text)), true, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	idle := strings.Replace(remote("{kind: github, repository: ops/fleet, token_file: /t}"), "intent: true", "intent: false", 1)
	if _, err := LoadConfig(writeConfig(t, idle), true, nil); err == nil || !strings.Contains(err.Error(), "set intent, or remove forge") {
		t.Errorf("a forge without intent: %v", err)
	}
}

// TestForgeTokenIsChecked: a mistake shows when the hub starts, without the secret.
func TestForgeTokenIsChecked(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("sesame"), 0o644); err != nil {
		t.Fatal(err)
	}
	configs := []RemoteConfig{{Name: "a", Forge: &ForgeConfig{Kind: "github", Repository: "ops/fleet", TokenFile: token}}, {Name: "b"}}
	if _, err := newStatuses(configs, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "open remote a: read token_file") || strings.Contains(err.Error(), "sesame") {
		t.Errorf("got %v", err)
	}
	if err := os.Chmod(token, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newStatuses(configs, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}

// answer is a service that decides as it is told.
type answer struct {
	out intent.Pushed
	err error
}

func (a answer) Take(context.Context, string, *gitrepo.Incoming, gitrepo.Hash) (intent.Pushed, error) {
	return a.out, a.err
}

// told keeps what was reported.
type told []forge.Status

func (t *told) Report(_ string, s forge.Status) { *t = append(*t, s) }

// TestStatusOfTaken: the host hears what became of a commit, within what it can show.
func TestStatusOfTaken(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 200)
	for name, tc := range map[string]struct {
		answer
		state forge.State
		want  string
	}{
		"applied":     {answer{out: intent.Pushed{Commit: "x", Applied: true, Lines: []string{"certificate shop: will be issued"}}}, forge.Success, "applied: certificate shop: will be issued"},
		"nothing":     {answer{out: intent.Pushed{Commit: "x", Applied: true}}, forge.Success, "applied"},
		"refused":     {answer{out: intent.Pushed{Commit: "x", Lines: []string{"a.yaml:3: no", "b.yaml:4: no", "c.yaml:1: no"}}}, forge.Failure, "refused: a.yaml:3: no (and 2 more)"},
		"long":        {answer{out: intent.Pushed{Commit: "x", Lines: []string{long, "more"}}}, forge.Failure, "refused: " + strings.Repeat("é", 117) + "… (and 1 more)"},
		"invalid":     {answer{err: fmt.Errorf("take: %w", gitstore.ErrInvalid)}, forge.Failure, "refused: this history cannot be taken; the hub's alerts say why"},
		"a full disk": {answer{err: errors.New("no space left")}, "", ""},
	} {
		var got told
		tip := gitrepo.Hash{1}
		err := intake{tc.answer, &got, "https://hub.example.com"}.Take(t.Context(), "a", nil, tip)
		if !errors.Is(err, tc.err) {
			t.Errorf("%s: got %v", name, err)
		}
		if tc.state == "" {
			if len(got) != 0 {
				t.Errorf("%s: told %+v", name, got)
			}
			continue
		}
		if len(got) != 1 || got[0].State != tc.state || got[0].Description != tc.want || got[0].Commit != tip.String() ||
			got[0].TargetURL != "https://hub.example.com/commits/"+tip.String() || len([]rune(got[0].Description)) > forge.MaxDescription {
			t.Errorf("%s: told %+v", name, got)
		}
	}
}
