package challenge_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path"
	"strings"
	"testing"

	"github.com/certferry/certferry/agent/internal/challenge"
)

var print43 = strings.Repeat("aB3_-", 8) + "xyz"

func TestCheck(t *testing.T) {
	t.Parallel()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := path.Base(r.URL.Path)
		switch r.Host {
		case "good.example":
			_, _ = w.Write([]byte(token + "." + print43 + "\n"))
		case "redirects.example":
			http.Redirect(w, r, "https://"+r.Host+r.URL.Path, http.StatusMovedPermanently)
		case "other.example":
			_, _ = w.Write([]byte("welcome"))
		case "fixed.example":
			_, _ = w.Write([]byte("token." + print43))
		case "breaks.example":
			panic(http.ErrAbortHandler)
		default:
			http.NotFound(w, r)
		}
	}))
	defer site.Close()
	here := netip.MustParseAddrPort(site.Listener.Addr().String())
	empty := httptest.NewServer(nil)
	nobody := netip.MustParseAddrPort(empty.Listener.Addr().String())
	empty.Close()
	for name, c := range map[string]struct {
		want   challenge.State
		detail string
	}{
		"good.example": {challenge.OK, print43}, "redirects.example": {challenge.Failed, "before the redirect"}, "other.example": {challenge.Failed, "something else"},
		"fixed.example": {challenge.Failed, "something else"}, "none.example": {challenge.Failed, "status 404"}, "breaks.example": {challenge.Failed, "no answer"},
	} {
		found := challenge.Check(t.Context(), []string{name}, []netip.AddrPort{here, nobody}, "")
		if len(found) != 2 || found[0].State != c.want || !strings.Contains(found[0].Detail, c.detail) || found[1].State != challenge.Absent {
			t.Errorf("%s: %+v", name, found)
		}
		if challenge.Right(found) != (c.want == challenge.OK) {
			t.Errorf("%s: right is %v", name, !challenge.Right(found))
		}
	}
	if found := challenge.Check(t.Context(), []string{"good.example"}, []netip.AddrPort{here}, strings.Repeat("z", 43)); found[0].State != challenge.Failed || !strings.Contains(found[0].Detail, "another account") {
		t.Errorf("%+v", found)
	}
	if challenge.Right(challenge.Check(t.Context(), []string{"good.example"}, []netip.AddrPort{nobody}, "")) || challenge.Right(nil) {
		t.Error("a server that listens nowhere is right")
	}
}

func TestCheckInput(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "*.example.com", "a b", "x/y", "a\n", "-a", "user@host"} {
		if challenge.CheckInput([]string{"good.example", bad}, "") == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if challenge.CheckInput([]string{"good.example"}, "short") == nil || challenge.CheckInput([]string{"good.example"}, print43) != nil {
		t.Error("thumbprints are judged wrongly")
	}
	if all, err := challenge.Addresses(80); err != nil || len(all) == 0 || all[0].Port() != 80 {
		t.Error(all, err)
	}
}
