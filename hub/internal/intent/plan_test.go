package intent_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/intent"
)

// newFleet is a hub with six servers, and a certificate that was issued and is on five of them.
func newFleet(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	cfg := f.config()
	cfg.Waves = manifest.DefaultWaves()
	cfg.Review = manifest.ReviewRequired
	var err error
	f.service, err = intent.New(cfg)
	f.must(err)
	for i := range 6 {
		labels := map[string]string{"role": "edge"}
		if i == 5 {
			labels["role"] = "core"
		}
		hubtest.Put(t, f.store, manifest.ServerPath(fmt.Sprintf("web-%d", i)), &manifest.Server{Name: fmt.Sprintf("web-%d", i), Labels: labels})
	}
	hubtest.Put(t, f.store, manifest.CertificatePath("old.test"), oldCertificate())
	f.issue("old.test")
	return f
}

func oldCertificate() *manifest.Certificate {
	return &manifest.Certificate{
		Name: "old.test", Names: []string{"old.test"}, Issuer: "private-ca",
		Deployments: []manifest.Placement{{Selector: "role=edge", Deployer: "nginx", Target: "site"}},
	}
}

// file is a document as a plan takes it.
func file(f *fixture, path string, document interface{ Encode() ([]byte, error) }) apiv1.PlanFile {
	f.Helper()
	return apiv1.PlanFile{Path: path, Content: string(yamlOf(f, path, document).Data)}
}

func changed(f *fixture, change func(*manifest.Certificate)) apiv1.PlanFile {
	f.Helper()
	c := oldCertificate()
	change(c)
	return file(f, manifest.CertificatePath("old.test"), c)
}

func labelled(f *fixture, name, role string) apiv1.PlanFile {
	f.Helper()
	return file(f, manifest.ServerPath(name), &manifest.Server{Name: name, Labels: map[string]string{"role": role}})
}

// TestPlan says what changes lead to, in figures and in sentences.
func TestPlan(t *testing.T) {
	t.Parallel()
	five := []string{"web-0", "web-1", "web-2", "web-3", "web-4"}
	old := func(action, reason string, servers int) apiv1.PlanCertificate {
		return apiv1.PlanCertificate{Name: "old.test", Action: action, Reason: reason, Issuer: "private-ca", Servers: servers}
	}
	for name, tc := range map[string]struct {
		files        func(f *fixture) []apiv1.PlanFile
		certificates []apiv1.PlanCertificate
		servers      []string
		summary      []string
	}{
		"a new certificate": {
			func(f *fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{file(f, "certificates/shop.yaml", &manifest.Certificate{
					Name: "shop", Names: []string{"shop.test"}, Issuer: "private-ca", Review: manifest.ReviewNone, // which does not loosen the hub's
					Deployments: []manifest.Placement{{Server: "web-5", Deployer: "nginx", Target: "site"}},
				})}
			},
			[]apiv1.PlanCertificate{{Name: "shop", Action: apiv1.PlanIssue, Reason: "new", Issuer: "private-ca", Servers: 1, Review: "required"}},
			[]string{"web-5"},
			[]string{"certificate shop: will be issued (new) by private-ca, goes to 1 server, after review", "servers that change: web-5"},
		},
		"other names": {
			func(f *fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{changed(f, func(c *manifest.Certificate) { c.Names = []string{"new.test"} })}
			},
			[]apiv1.PlanCertificate{{
				Name: "old.test", Action: apiv1.PlanReissue, Reason: "its names changed", Issuer: "private-ca", Servers: 5,
				Waves: []int{1, 5}, Review: "required",
			}},
			five,
			[]string{
				"certificate old.test: will be issued again (its names changed) by private-ca, goes to 5 servers in 2 waves, after review",
				"servers that change: web-0, web-1, web-2, web-3, web-4",
			},
		},
		"another key type, in waves of its own": {
			func(f *fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{changed(f, func(c *manifest.Certificate) {
					c.KeyType, c.Waves, c.Review = "rsa-2048", manifest.Waves{{N: 2}, {N: 4}}, manifest.ReviewTwoPerson
				})}
			},
			[]apiv1.PlanCertificate{{
				Name: "old.test", Action: apiv1.PlanReissue, Reason: "its key type changed", Issuer: "private-ca", Servers: 5,
				Waves: []int{2, 4, 5}, Review: "two-person",
			}},
			five,
			[]string{
				"certificate old.test: will be issued again (its key type changed) by private-ca, goes to 5 servers in 3 waves, after review",
				"servers that change: web-0, web-1, web-2, web-3, web-4",
			},
		},
		"the same key type, said aloud": {
			func(f *fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{changed(f, func(c *manifest.Certificate) { c.KeyType = "ecdsa-p256" })}
			},
			[]apiv1.PlanCertificate{old(apiv1.PlanChange, "no new issue is needed", 5)},
			[]string{},
			[]string{"certificate old.test: no new issue is needed", "no server changes"},
		},
		"another target": {
			func(f *fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{changed(f, func(c *manifest.Certificate) { c.Deployments[0].Target = "shop" })}
			},
			[]apiv1.PlanCertificate{old(apiv1.PlanDeploy, "its servers or targets change", 5)},
			five,
			[]string{"certificate old.test: its servers or targets change; it goes to 5 servers as it is", "servers that change: web-0, web-1, web-2, web-3, web-4"},
		},
		"a pause": {
			func(f *fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{changed(f, func(c *manifest.Certificate) { c.Renewal.Paused, c.KeyType = true, "rsa-2048" })}
			},
			[]apiv1.PlanCertificate{old(apiv1.PlanChange, "its renewal is paused", 5)},
			[]string{},
			[]string{"certificate old.test: its renewal is paused", "no server changes"},
		},
		"labels that bring a certificate": {
			func(f *fixture) []apiv1.PlanFile { return []apiv1.PlanFile{labelled(f, "web-5", "edge")} },
			[]apiv1.PlanCertificate{old(apiv1.PlanDeploy, "its servers or targets change", 6)},
			[]string{"web-5"},
			[]string{
				"certificate old.test: its servers or targets change; it goes to 6 servers as it is", "server web-5: its labels change",
				"servers that change: web-5",
			},
		},
		"labels that take one away": {
			func(f *fixture) []apiv1.PlanFile { return []apiv1.PlanFile{labelled(f, "web-0", "core")} },
			[]apiv1.PlanCertificate{old(apiv1.PlanDeploy, "its servers or targets change", 4)},
			[]string{"web-0"},
			[]string{
				"certificate old.test: its servers or targets change; it goes to 4 servers as it is", "server web-0: its labels change",
				"servers that change: web-0",
			},
		},
		"no more certificate": {
			func(*fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{{Path: "certificates/old.test.yaml", Removed: true}}
			},
			[]apiv1.PlanCertificate{old(apiv1.PlanRemove, "no longer renewed or deployed; servers keep the files that they have", 0)},
			five,
			[]string{"certificate old.test: no longer renewed or deployed; servers keep the files that they have", "servers that change: web-0, web-1, web-2, web-3, web-4"},
		},
		"an issuer": {
			func(f *fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{file(f, "issuers/other.yaml", &manifest.Issuer{Name: "other", Type: "privateca"})}
			},
			[]apiv1.PlanCertificate{},
			[]string{},
			[]string{"issuer other: new", "no server changes"},
		},
		"a text for people": {
			func(*fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{{Path: "README.md", Content: "Ask ops before you push."}}
			},
			[]apiv1.PlanCertificate{},
			[]string{},
			[]string{"no server changes"},
		},
		"nothing": {
			func(f *fixture) []apiv1.PlanFile {
				return []apiv1.PlanFile{changed(f, func(*manifest.Certificate) {}), {Path: "certificates/none.yaml", Removed: true}}
			},
			[]apiv1.PlanCertificate{},
			[]string{},
			[]string{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			before := f.head()
			got, err := f.service.Plan(t.Context(), apiv1.PlanRequest{Files: tc.files(f)})
			f.must(err)
			if len(got.Faults) > 0 {
				t.Fatalf("faults: %+v", got.Faults)
			}
			if diff := cmp.Diff(tc.certificates, got.Certificates); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tc.servers, got.Servers); diff != "" || got.ServerCount != len(tc.servers) {
				t.Error(got.ServerCount, diff)
			}
			if diff := cmp.Diff(tc.summary, got.Summary); diff != "" {
				t.Error(diff)
			}
			if f.head().Hash != before.Hash || got.Commit != before.Hash.String() {
				t.Error("main moved")
			}
		})
	}
}

// TestPlanFaults finds what a push would be refused for.
func TestPlanFaults(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	hubtest.Put(t, f.store, "certificates/core.test.yaml", &manifest.Certificate{
		Name: "core.test", Names: []string{"core.test"}, Issuer: "private-ca",
		Deployments: []manifest.Placement{{Selector: "zone=a", Deployer: "nginx", Target: "site"}},
	})
	for name, tc := range map[string]struct {
		files []apiv1.PlanFile
		want  string
	}{
		"not YAML":       {[]apiv1.PlanFile{{Path: "servers/a.yaml", Content: "a: [\n"}}, "servers/a.yaml:1 "},
		"unknown key":    {[]apiv1.PlanFile{{Path: "servers/a.yaml", Content: "name: a\nip: x\n"}}, `servers/a.yaml:2 unknown key "ip"`},
		"empty":          {[]apiv1.PlanFile{{Path: "servers/a.yaml"}}, "servers/a.yaml:0 the file is empty"},
		"the hub's own":  {[]apiv1.PlanFile{{Path: "issued/ab/x/chain.pem", Content: "x"}}, "only the hub writes this file"},
		"outside":        {[]apiv1.PlanFile{{Path: "../etc/passwd", Content: "x"}}, "only the hub writes this file"},
		"strange path":   {[]apiv1.PlanFile{{Path: "servers/../x.yaml", Content: "x"}}, "does not belong here"},
		"too deep":       {[]apiv1.PlanFile{{Path: "servers/a/b/c/d.yaml", Content: "name: d"}}, "does not belong here"},
		"another name":   {[]apiv1.PlanFile{{Path: "servers/a.yaml", Content: "name: b"}}, "the name inside differs"},
		"server in use":  {[]apiv1.PlanFile{{Path: "issuers/private-ca.yaml", Removed: true}}, "the certificate core.test still needs private-ca"},
		"crowded labels": {[]apiv1.PlanFile{{Path: "servers/web-0.yaml", Content: "name: web-0\nlabels: {role: edge, zone: a}\n"}}, "servers/web-0.yaml:2 labels: with these labels the certificates core.test and old.test would be at one target"},
		"an issuer that asks for more": {[]apiv1.PlanFile{{
			Path: "issuers/private-ca.yaml", Content: "name: private-ca\ntype: acmesh\nacme: {directory: 'https://ca.example/d'}\n",
		}}, "issuers/private-ca.yaml:2 type: the certificate core.test says nothing of a challenge"},
	} {
		got, err := f.service.Plan(t.Context(), apiv1.PlanRequest{Files: tc.files})
		f.must(err)
		var all []string
		for _, fault := range got.Faults {
			all = append(all, fmt.Sprintf("%s:%d %s", fault.Path, fault.Line, fault.Message))
		}
		if len(all) != 1 || !strings.Contains(all[0], tc.want) || len(got.Summary)+len(got.Certificates) > 0 {
			t.Errorf("%s: got %q and %q, want %q", name, all, got.Summary, tc.want)
		}
	}
}

// TestPlanRequests refuses what is no plan.
func TestPlanRequests(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	before := f.head()
	for text, request := range map[string]apiv1.PlanRequest{
		"body.base: the hub has no such commit": {Base: "0000000"},
		"body.base: give 7 to 40":               {Base: "abc"},
		"body.files[1].path: stands there":      {Files: []apiv1.PlanFile{{Path: "a"}, {Path: "a"}}},
		"body.files[0]: give either":            {Files: []apiv1.PlanFile{{Path: "a", Content: "x", Removed: true}}},
	} {
		_, err := f.service.Plan(t.Context(), request)
		f.refused(err, hub.ErrInvalid, before, text)
	}
	_, err := f.service.PlanBase(t.Context(), "zzzzzzz")
	f.refused(err, hub.ErrInvalid, before, "query.commit: give 7 to 40")
}

// TestPlanFromAnEarlierMain merges by file, and tells of a file that somebody else changed.
func TestPlanFromAnEarlierMain(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	base, err := f.service.PlanBase(t.Context(), "")
	f.must(err)
	hubtest.Put(t, f.store, manifest.ServerPath("web-0"), &manifest.Server{Name: "web-0", Labels: map[string]string{"role": "core"}})
	mine := labelled(f, "web-1", "core")
	got, err := f.service.Plan(t.Context(), apiv1.PlanRequest{Base: base.Commit[:10], Files: []apiv1.PlanFile{mine}})
	f.must(err)
	if diff := cmp.Diff([]string{"web-1"}, got.Servers); diff != "" || got.Changed != 1 {
		t.Error(got.Changed, diff)
	}
	same := labelled(f, "web-0", "core")
	got, err = f.service.Plan(t.Context(), apiv1.PlanRequest{Base: base.Commit, Files: []apiv1.PlanFile{same}})
	f.must(err)
	if got.Changed != 0 || len(got.Faults) != 0 {
		t.Errorf("what both did: %+v", got)
	}
	other := labelled(f, "web-0", "other")
	got, err = f.service.Plan(t.Context(), apiv1.PlanRequest{Base: base.Commit, Files: []apiv1.PlanFile{other}})
	f.must(err)
	if len(got.Faults) != 1 || !strings.Contains(got.Faults[0].Message, "somebody else changed this file") {
		t.Errorf("a conflict: %+v", got)
	}
	again, err := f.service.PlanBase(t.Context(), base.Commit)
	f.must(err)
	if diff := cmp.Diff(base, again); diff != "" {
		t.Error(diff)
	}
	if base.Files["servers/web-0.yaml"] == "" || base.Files["issued/"] != "" || base.Files["README.md"] == "" && len(base.Files) < 8 {
		t.Errorf("got %v", base.Files)
	}
}
