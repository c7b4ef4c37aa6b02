package haproxy

import (
	"slices"
	"strings"
	"testing"
)

// TestArguments: what is left for a test of a running process's arguments, and what it reads.
func TestArguments(t *testing.T) {
	t.Parallel()
	tests := []struct{ args, tested, configs, master string }{
		{"haproxy -Ws -f /etc/h.cfg -p /run/h.pid -S /run/m.sock,level,admin", "-f /etc/h.cfg", "/etc/h.cfg", "/run/m.sock"},
		{"haproxy -sf 12 13 -x /run/old.sock -W -f a.cfg -f conf.d", "-f a.cfg -f conf.d", "/cwd/a.cfg /cwd/conf.d", ""},
		{"haproxy -sf 12 -f a.cfg -st 9", "-f a.cfg", "/cwd/a.cfg", ""},
		{"haproxy -C /srv -f a.cfg -L peer -n 100 -D -q", "-C /srv -f a.cfg -L peer -n 100", "/srv/a.cfg", ""},
		{"haproxy -W -dr -S unix@/run/m.sock -- a.cfg b.cfg", "-dr -- a.cfg b.cfg", "/cwd/a.cfg /cwd/b.cfg", "/run/m.sock"},
		{"haproxy -S 127.0.0.1:9999 -f", "-f ", "/cwd", ""},
		{"haproxy", "", "", ""},
	}
	for _, tt := range tests {
		i := instance{}
		i.Args = strings.Fields(tt.args)
		o := optionsOf(i.Args)
		if got := strings.Join(o.tested, " "); got != tt.tested {
			t.Errorf("%s: tested with %q, want %q", tt.args, got, tt.tested)
		}
		if got := strings.Join(o.configs("/cwd"), " "); got != tt.configs {
			t.Errorf("%s: configurations %q, want %q", tt.args, got, tt.configs)
		}
		if got := string(i.masterSocket()); got != tt.master {
			t.Errorf("%s: master socket %q, want %q", tt.args, got, tt.master)
		}
	}
	env := testEnvironment([]string{"A=1", "HAPROXY_MWORKER_REEXEC=1", "NOTIFY_SOCKET=x", "HAPROXY_LOCALPEER=p"})
	if !slices.Equal(env, []string{"A=1", "HAPROXY_LOCALPEER=p"}) {
		t.Errorf("environment %q", env)
	}
}
