package intent_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/intent"
)

var grace = gitrepo.Person{Name: "Grace", Email: "grace@example.com", When: hubtest.Epoch}

// elsewhere is a copy of the hub's repository in which people commit: what they did comes back as a push.
type elsewhere struct {
	f    *fixture
	dir  string
	repo *gitrepo.Repo
	base gitrepo.Hash
}

// newElsewhere clones the hub's main; sign signs what is committed there, nil leaves it unsigned.
func newElsewhere(f *fixture, sign gitrepo.SignFunc) *elsewhere {
	f.Helper()
	dir := f.TempDir()
	repo, err := gitrepo.Open(dir, gitrepo.Options{Now: f.clock.Now, Sign: sign})
	f.must(err)
	f.Cleanup(func() { f.must(repo.Close()) })
	head, _ := f.store.Repo().Ref(manifest.MainBranch)
	e := &elsewhere{f: f, dir: dir, repo: repo, base: head}
	in, err := repo.ReadIncoming(e.pack(f.store.Repo(), head, gitrepo.Hash{}), gitrepo.PushLimits)
	f.must(err)
	_, err = repo.Apply(f.Context(), []gitrepo.Update{{Ref: manifest.MainBranch, To: head, Incoming: in}}, nil)
	f.must(err)
	return e
}

func (e *elsewhere) pack(from *gitrepo.Repo, tip, have gitrepo.Hash) *strings.Reader {
	e.f.Helper()
	var haves []gitrepo.Hash
	if !have.IsZero() {
		haves = append(haves, have)
	}
	objects, _, err := from.Missing([]gitrepo.Hash{tip}, haves, 0)
	e.f.must(err)
	var b strings.Builder
	e.f.must(from.WritePack(&b, objects))
	return strings.NewReader(b.String())
}

func (e *elsewhere) commit(who gitrepo.Person, edits ...gitrepo.Edit) {
	e.f.Helper()
	head, _ := e.repo.Ref(manifest.MainBranch)
	_, err := e.repo.Apply(e.f.Context(), []gitrepo.Update{{
		Ref: manifest.MainBranch, Base: head, Parents: []gitrepo.Hash{head}, Author: who, Committer: who, Message: "change", Edits: edits,
	}}, nil)
	e.f.must(err)
}

// incoming is what was committed since the clone.
func (e *elsewhere) incoming() (*gitrepo.Incoming, gitrepo.Hash) {
	e.f.Helper()
	head, _ := e.repo.Ref(manifest.MainBranch)
	in, err := e.f.store.Repo().ReadIncoming(e.pack(e.repo, head, e.base), gitrepo.PushLimits)
	e.f.must(err)
	return in, head
}

func yamlOf(f *fixture, path string, document interface{ Encode() ([]byte, error) }) gitrepo.Edit {
	f.Helper()
	data, err := document.Encode()
	f.must(err)
	return gitrepo.Edit{Path: path, Data: data}
}

func certificateEdit(f *fixture, name string, change func(*manifest.Certificate)) gitrepo.Edit {
	f.Helper()
	c := &manifest.Certificate{Name: name, Names: []string{name + ".test"}, Issuer: "private-ca"}
	if change != nil {
		change(c)
	}
	c.APIVersion, c.Kind = manifest.APIVersion, manifest.KindCertificate
	return yamlOf(f, manifest.CertificatePath(name), c)
}

func serverEdit(f *fixture, name string, hold *manifest.Hold) gitrepo.Edit {
	f.Helper()
	return yamlOf(f, manifest.ServerPath(name), &manifest.Server{
		APIVersion: manifest.APIVersion, Kind: manifest.KindServer, Name: name, Labels: map[string]string{"role": "edge"}, Hold: hold,
	})
}

func on(server string) func(*manifest.Certificate) {
	return func(c *manifest.Certificate) {
		c.Deployments = []manifest.Placement{{Server: server, Deployer: "nginx", Target: "site"}}
	}
}

// TestPush applies what an operator pushed, says what will happen, and records who it was.
func TestPush(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	e := newElsewhere(f, nil)
	e.commit(grace, serverEdit(f, "web-1", nil), certificateEdit(f, "shop", on("web-1")))
	in, tip := e.incoming()
	out, err := f.service.Push(t.Context(), ada, in, tip)
	f.must(err)
	got := strings.Join(out.Lines, "\n")
	if !out.Applied || out.Commit != tip.String() || !strings.Contains(got, "certificate shop: will be issued (new)") ||
		!strings.Contains(got, "servers that change: web-1") || f.changed == 0 {
		t.Errorf("got %+v", out)
	}
	events, err := f.db.AuditEvents(t.Context(), 0, 1)
	f.must(err)
	if e := events[0]; e.Action != "push-intent" || e.Actor != ada.Name || e.Outcome != hub.OutcomeOK || !strings.Contains(e.Detail, tip.String()) {
		t.Errorf("got audit row %+v", e)
	}
}

// TestIssuersAreForAdministrators: an operator who may not change them by the API may not do so by a push.
func TestIssuersAreForAdministrators(t *testing.T) {
	t.Parallel()
	for role, want := range map[apiv1.Role]bool{apiv1.RoleOperator: false, apiv1.RoleAdmin: true} {
		f := newFixture(t)
		e := newElsewhere(f, nil)
		e.commit(grace, yamlOf(f, manifest.IssuerPath("other"), &manifest.Issuer{
			APIVersion: manifest.APIVersion, Kind: manifest.KindIssuer, Name: "other", Type: "privateca",
		}))
		in, tip := e.incoming()
		out, err := f.service.Push(t.Context(), hub.Principal{Kind: hub.Person, Name: "ada", Role: role}, in, tip)
		if err != nil || out.Applied != want {
			t.Errorf("%s: %+v, %v", role, out, err)
		}
		if !want && !strings.Contains(strings.Join(out.Lines, " "), "issuers/other.yaml: only administrators") {
			t.Errorf("%s: %q", role, out.Lines)
		}
	}
}

// TestPushRefused says everything that is wrong, with file and line, and tells others by an alert.
func TestPushRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		edits func(f *fixture) []gitrepo.Edit
		who   gitrepo.Person
		want  string
	}{
		"no issuer": {
			edits: func(f *fixture) []gitrepo.Edit {
				return []gitrepo.Edit{certificateEdit(f, "a", func(c *manifest.Certificate) { c.Issuer = "nobody" })}
			}, want: "certificates/a.yaml:6: issuer: no such issuer",
		},
		"no server": {
			edits: func(f *fixture) []gitrepo.Edit { return []gitrepo.Edit{certificateEdit(f, "a", on("web-9"))} },
			want:  "certificates/a.yaml:8: deployments[0].server: no such server",
		},
		"two at one target": {
			edits: func(f *fixture) []gitrepo.Edit {
				return []gitrepo.Edit{certificateEdit(f, "a", on("web-1")), certificateEdit(f, "b", on("web-1"))}
			}, want: "on server web-1 the certificate b is at this target already",
		},
		"server in use": {
			edits: func(*fixture) []gitrepo.Edit { return []gitrepo.Edit{{Path: "servers/web-1.yaml", Delete: true}} },
			want:  "servers/web-1.yaml: the certificate used still needs web-1",
		},
		"hold at nothing": {
			edits: func(f *fixture) []gitrepo.Edit {
				return []gitrepo.Edit{serverEdit(f, "web-1", &manifest.Hold{Commit: strings.Repeat("ab", 20), By: "grace", Since: hubtest.Epoch})}
			}, want: "servers/web-1.yaml:7: hold.commit: nothing was deployed",
		},
		"issuer not allowed": {
			edits: func(f *fixture) []gitrepo.Edit {
				return []gitrepo.Edit{yamlOf(f, manifest.IssuerPath("le"), &manifest.Issuer{
					APIVersion: manifest.APIVersion, Kind: manifest.KindIssuer, Name: "le", Type: "acmesh",
					ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir"},
				})}
			}, want: "issuers/le.yaml: not allowed here",
		},
		"in the hub's name": {
			edits: func(f *fixture) []gitrepo.Edit { return []gitrepo.Edit{certificateEdit(f, "a", nil)} },
			who:   gitrepo.Person{Name: "Certferry hub", Email: "hub@hub.example.com", When: hubtest.Epoch},
			want:  "bears the hub's name",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			cfg := f.config()
			cfg.CheckIssuer = func(i *manifest.Issuer) error {
				if i.Type == "acmesh" {
					return errors.New("not allowed here")
				}
				return nil
			}
			service, err := intent.New(cfg)
			f.must(err)
			hubtest.Put(t, f.store, manifest.ServerPath("web-1"), &manifest.Server{Name: "web-1", Labels: map[string]string{"role": "edge"}})
			hubtest.Put(t, f.store, manifest.CertificatePath("used"), &manifest.Certificate{
				Name: "used", Names: []string{"used.test"}, Issuer: "private-ca",
				Deployments: []manifest.Placement{{Server: "web-1", Deployer: "nginx", Target: "used"}},
			})
			e := newElsewhere(f, nil)
			if tc.who.Name == "" {
				tc.who = grace
			}
			e.commit(tc.who, tc.edits(f)...)
			in, tip := e.incoming()
			out, err := service.Push(t.Context(), ada, in, tip)
			f.must(err)
			if out.Applied || !strings.Contains(strings.Join(out.Lines, "\n"), tc.want) {
				t.Errorf("got %+v, want %q", out, tc.want)
			}
			if head, _ := f.store.Repo().Ref(manifest.MainBranch); head != e.base {
				t.Error("main moved")
			}
			alerts, err := f.db.Alerts(t.Context(), true, 0, 10)
			f.must(err)
			events, err := f.db.AuditEvents(t.Context(), 0, 1)
			f.must(err)
			if len(alerts) != 1 || alerts[0].Kind != hub.AlertIntentRefused || !strings.Contains(alerts[0].Message, tc.want) ||
				events[0].Outcome != hub.OutcomeDenied {
				t.Errorf("got alerts %+v, audit %+v", alerts, events[0])
			}
		})
	}
}

// TestPushOfOldMain tells who is behind to pull first.
func TestPushOfOldMain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	e := newElsewhere(f, nil)
	e.commit(grace, certificateEdit(f, "a", nil))
	hubtest.Put(t, f.store, manifest.ServerPath("web-1"), &manifest.Server{Name: "web-1"})
	in, tip := e.incoming()
	if _, err := f.service.Push(t.Context(), ada, in, tip); !errors.Is(err, gitstore.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
}

// TestTakeSigned lets commits of a remote count only if an operator signed them, and records a refusal on main.
func TestTakeSigned(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	known, stranger := hubtest.NewKey(t, "grace", f.clock.Now()), hubtest.NewKey(t, "mallory", f.clock.Now())
	cfg := f.config()
	cfg.SignedRemotes = true
	cfg.Signers = func() ([]*seal.PublicKey, error) { return []*seal.PublicKey{known.Public()}, nil }
	service, err := intent.New(cfg)
	f.must(err)
	sign := func(key *seal.PrivateKey) gitrepo.SignFunc {
		return func(payload []byte) ([]byte, error) { return seal.Sign("", payload, key, f.clock.Now()) }
	}
	for _, tc := range []struct {
		name string
		sign gitrepo.SignFunc
		want string
	}{
		{"unsigned", nil, "it is not signed"},
		{"stranger", sign(stranger), "not signed with the key of an operator"},
		{"operator", sign(known), ""},
	} {
		name := tc.name
		e := newElsewhere(f, tc.sign)
		e.commit(grace, certificateEdit(f, name, nil))
		in, tip := e.incoming()
		out, err := service.Take(t.Context(), "forge", in, tip)
		f.must(err)
		if out.Applied != (tc.want == "") || !strings.Contains(strings.Join(out.Lines, "\n"), tc.want) {
			t.Errorf("%s: got %+v, want %q", name, out, tc.want)
		}
		if _, there := f.snapshot().Certificates[name]; there != (tc.want == "") {
			t.Errorf("%s: on main: %v", name, there)
		}
		if head := f.head(); tc.want != "" && (!strings.HasPrefix(head.Message, "refuse "+tip.Short()) || head.Parents[1] != tip) {
			t.Errorf("%s: main says %q", name, head.Message)
		}
	}
	alerts, err := f.db.Alerts(t.Context(), true, 0, 10)
	f.must(err)
	if len(alerts) != 0 {
		t.Errorf("got open alerts %+v after a good push", alerts)
	}
}

// TestStockSignature accepts what a real git with a real gpg signed.
func TestStockSignature(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"git", "gpg"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIP: %s is not installed", program)
		}
	}
	f := newFixture(t)
	home, err := os.MkdirTemp("", "gnupg") //nolint:usetesting // the socket of gpg's agent needs a short path
	f.must(err)
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GNUPGHOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C",
			"GIT_AUTHOR_NAME=Grace", "GIT_AUTHOR_EMAIL=grace@example.com", "GIT_COMMITTER_NAME=Grace", "GIT_COMMITTER_EMAIL=grace@example.com",
			"GIT_AUTHOR_DATE=2026-11-02T09:00:00Z", "GIT_COMMITTER_DATE=2026-11-02T09:00:00Z",
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v", name, args, err)
		}
		return strings.TrimSpace(string(out))
	}
	t.Cleanup(func() {
		run("gpgconf", "--kill", "all")
		f.must(os.RemoveAll(home))
	})
	run("gpg", "--batch", "--faked-system-time", "20261101T000000", "--passphrase", "", "--quick-generate-key", "Grace <grace@example.com>", "ed25519", "sign", "never")
	keys, err := seal.ParseSigners([]byte(run("gpg", "--armor", "--export", "grace@example.com")))
	f.must(err)
	clone := filepath.Join(home, "clone")
	head, _ := f.store.Repo().Ref(manifest.MainBranch)
	run("git", "clone", "-q", newElsewhere(f, nil).dir, clone)
	edit := certificateEdit(f, "signed", nil)
	f.must(os.MkdirAll(filepath.Join(clone, "certificates"), 0o700))
	f.must(os.WriteFile(filepath.Join(clone, edit.Path), edit.Data, 0o600))
	run("git", "-C", clone, "add", ".")
	then := filepath.Join(home, "gpg-then") // the test's clock stands in the past
	f.must(os.WriteFile(then, []byte("#!/bin/sh\nexec gpg --faked-system-time 20261102T090000 \"$@\"\n"), 0o700))
	run("git", "-C", clone, "-c", "gpg.program="+then, "commit", "-q", "-S", "-m", "ask for signed")
	tip, err := gitrepo.ParseHash(run("git", "-C", clone, "rev-parse", "HEAD"))
	f.must(err)
	pack := filepath.Join(home, "pack")
	run("sh", "-c", "printf 'HEAD\\n^"+head.String()+"\\n' | git -C "+clone+" pack-objects --revs --stdout -q > "+pack)
	file, err := os.Open(pack)
	f.must(err)
	defer func() { _ = file.Close() }()
	in, err := f.store.Repo().ReadIncoming(file, gitrepo.PushLimits)
	f.must(err)
	cfg := f.config()
	cfg.SignedRemotes = true
	cfg.Signers = func() ([]*seal.PublicKey, error) { return keys, nil }
	service, err := intent.New(cfg)
	f.must(err)
	out, err := service.Take(t.Context(), "forge", in, tip)
	f.must(err)
	if !out.Applied {
		t.Errorf("got %+v", out)
	}
}
