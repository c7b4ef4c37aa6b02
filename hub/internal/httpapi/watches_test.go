package httpapi_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/httpapi"
)

// finds is who hears what agents find.
type finds struct {
	server string
	found  []hub.Watch
}

func (f *finds) Found(_ context.Context, server string, found []hub.Watch) error {
	f.server, f.found = server, found
	return nil
}

func TestAgentsTellWhatTheyFound(t *testing.T) {
	t.Parallel()
	heard := &finds{}
	w := newWorld(t, func(c *httpapi.Config) { c.Finds = heard })
	agent := w.agent("web-1", hub.ServerApproved)
	leaf := strings.Repeat("ab", 32)
	good := apiv1.FoundCertificate{Target: "site", Names: []string{"a.example", "<b>"}, Issuer: "CA\n1", NotBefore: w.clock(), NotAfter: w.clock().Add(time.Hour), LeafSHA256: leaf}
	odd, backwards := good, good
	odd.Target, backwards.NotAfter = "../etc", w.clock().Add(-time.Hour)
	file, relative := good, good
	file.Target, file.Path = "", "/etc/ssl/a.pem"
	relative.Target, relative.Path = "", "a.pem"
	found := []apiv1.FoundCertificate{good, odd, backwards, file, relative}
	beat := apiv1.HeartbeatRequest{Counter: 1, Status: "ok", Found: &found}
	if got := w.send(http.MethodPost, apiv1.Prefix+"/servers/heartbeat", agent, beat); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if heard.server != "web-1" || len(heard.found) != 2 || heard.found[1].Object != "etc/ssl/a.pem" || heard.found[0].Object != "site" || heard.found[0].Issuer != "CA 1" || len(heard.found[0].Names) != 1 {
		t.Errorf("%+v", heard)
	}
	heard.server = ""
	beat.Counter, beat.Found = 2, nil
	w.send(http.MethodPost, apiv1.Prefix+"/servers/heartbeat", agent, beat)
	if heard.server != "" {
		t.Error("a heartbeat that tells nothing of certificates says that there are none")
	}
}

// TestEndpointsEndWithTheirAlerts: what nobody watches any more alarms nobody.
func TestEndpointsEndWithTheirAlerts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("otto", apiv1.RoleOperator)
	if got := w.send(http.MethodPost, apiv1.Prefix+"/endpoints", operator, apiv1.EndpointRequest{Name: "front", Address: "front.example:443"}); got.status != http.StatusCreated {
		t.Fatalf("%d %s", got.status, got.body)
	}
	w.must(w.db.Raise(t.Context(), hub.Alert{Kind: hub.AlertEndpointFaulty, Object: "front", Level: hub.AlertWarning, Message: "x"}))
	w.must(w.db.Raise(t.Context(), hub.Alert{Kind: hub.AlertCertificateExpiring, Object: "endpoint front", Level: hub.AlertWarning, Message: "x"}))
	if got := w.send(http.MethodDelete, apiv1.Prefix+"/endpoints/front", operator, nil); got.status != http.StatusNoContent {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if left := decode[apiv1.List[apiv1.Alert]](t, w.get(apiv1.Prefix+"/alerts", operator)); len(left.Items) != 0 {
		t.Errorf("%+v", left.Items)
	}
}

func TestWatchesAndReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	viewer := w.person("view", apiv1.RoleViewer)
	now := w.clock()
	w.must(w.db.PutWatches(t.Context(), []hub.Watch{
		{Kind: hub.WatchManaged, Object: "shop", Names: []string{"shop.example"}, NotBefore: now.Add(-80 * 24 * time.Hour), NotAfter: now.Add(10 * 24 * time.Hour), LeafSHA256: "a"},
		{Kind: hub.WatchFound, Object: "web-1/site", NotBefore: now, NotAfter: now.Add(24 * time.Hour), LeafSHA256: "b"},
		{Kind: hub.WatchEndpoint, Object: "front", NotBefore: now, NotAfter: now.Add(24 * time.Hour), LeafSHA256: "c"},
	}))
	first := decode[apiv1.List[apiv1.Watch]](t, w.get(apiv1.Prefix+"/watches?limit=2", viewer))
	rest := decode[apiv1.List[apiv1.Watch]](t, w.get(apiv1.Prefix+"/watches?limit=2&after="+strings.ReplaceAll(first.Next, " ", "%20"), viewer))
	if len(first.Items) != 2 || len(rest.Items) != 1 || rest.Items[0].Object != "shop" || rest.Items[0].Level != "critical" {
		t.Errorf("%+v, then %+v", first, rest)
	}
	found := decode[apiv1.List[apiv1.Watch]](t, w.get(apiv1.Prefix+"/watches?kind=found", viewer))
	if len(found.Items) != 1 || found.Items[0].Object != "web-1/site" || found.Items[0].Level != "ok" {
		t.Errorf("%+v", found)
	}

	w.fleet.addCertificate(&manifest.Certificate{Name: "shop", Names: []string{"shop.example"}, Issuer: "private"}, &manifest.IssuedCertificate{
		Name: "shop", Issuer: "private", Serial: "0a", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(40 * 24 * time.Hour),
	})
	w.fleet.addCertificate(&manifest.Certificate{Name: "waits", Names: []string{"waits.example"}, Issuer: "private"}, nil)
	stats := decode[apiv1.CertificateStats](t, w.get(apiv1.Prefix+"/stats/certificates", viewer))
	weeks := 0
	for _, n := range stats.ByWeek {
		weeks += n
	}
	if stats.Total < 2 || stats.ByState[apiv1.CertificatePending] < 1 || stats.ByIssuer["private"] < 1 || len(stats.ByWeek) != 14 || weeks < 1 {
		t.Errorf("%+v", stats)
	}
	w.fleet.edit(func(f *fleet) {
		f.snap.Certificates["shop"].Names = []string{"=cmd|'/c calc'!A1"}
	})
	table := w.get(apiv1.Prefix+"/reports/certificates.csv", viewer)
	if table.header.Get("Content-Type") != "text/csv; charset=utf-8" || !strings.Contains(string(table.body), ",'=cmd|") || !strings.HasPrefix(string(table.body), "name,state,") {
		t.Errorf("%s %s", table.header.Get("Content-Type"), table.body)
	}
}
