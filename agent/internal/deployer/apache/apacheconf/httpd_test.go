package apacheconf_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent/internal/deployer/apache/apacheconf"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
)

// httpd runs the real server's configuration test on the tree of testdata.
func httpd(t *testing.T, o apacheconf.Options, args ...string) string {
	t.Helper()
	cmd := exec.Command(deployertest.Program(t, "apache2"), append([]string{"-d", o.ServerRoot, "-f", o.Config, "-t"}, args...)...)
	for _, name := range o.Defines {
		cmd.Args = append(cmd.Args, "-D", name)
	}
	cmd.Env = o.Environment
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// version is the real server's.
func version(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(deployertest.Program(t, "apache2"), "-v").Output()
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`Apache/([\d.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no version in %s", out)
	}
	return string(m[1])
}

// certificates are the files that httpd lists for DUMP_CERTS, sorted.
func certificates(dump string) []string {
	var all []string
	for line := range strings.Lines(dump) {
		if path, ok := strings.CutPrefix(line, "  /"); ok {
			all = append(all, "/"+strings.TrimSpace(path))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

var hostPattern = regexp.MustCompile(`(?m)^(?:\S+:(\d+) +| +port (\d+) namevhost )(\S+) \(|^ +(?:wild )?alias (\S+)$`)

// hosts are the ports and names that httpd lists for DUMP_VHOSTS, sorted.
func hosts(dump string) []string {
	var all []string
	port := ""
	for _, m := range hostPattern.FindAllStringSubmatch(dump, -1) {
		port = cmp.Or(m[1], m[2], port)
		all = append(all, port+" "+strings.ToLower(cmp.Or(m[3], m[4])))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestSideBySide: what httpd itself says of the tree is what the parser says.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	o := treeOptions(tree(t))
	ours := apacheconf.Parse(disk{}, o)
	// httpd wants every file to be there, and asks no more of it.
	for _, path := range ours.Certificates {
		lay(t, path)
	}
	for _, s := range ours.Sites {
		lay(t, s.Certificate, s.Key, s.Chain)
	}
	theirs := certificates(httpd(t, o, "-D", "DUMP_CERTS"))
	if len(theirs) < 12 {
		t.Errorf("httpd found %d certificates only", len(theirs))
	}
	if diff := gocmp.Diff(theirs, ours.Certificates); diff != "" {
		t.Errorf("certificates (- httpd, + ours):\n%s", diff)
	}
	var names []string
	for _, s := range ours.Sites {
		for _, l := range s.Listeners {
			for _, name := range s.Names {
				names = append(names, l.Address[strings.LastIndexByte(l.Address, ':')+1:]+" "+name)
			}
		}
	}
	slices.Sort(names)
	served := slices.DeleteFunc(hosts(httpd(t, o, "-D", "DUMP_VHOSTS")), func(s string) bool { return strings.HasPrefix(s, "80 ") })
	for i, s := range served {
		served[i] = strings.Replace(s, "static?.example.com", `~^static.\.example\.com$`, 1)
	}
	slices.Sort(served)
	if diff := gocmp.Diff(served, slices.Compact(names)); diff != "" {
		t.Errorf("names (- httpd, + ours):\n%s", diff)
	}
}

func lay(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if path == "" {
			continue
		}
		if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConditions asks httpd and the parser which of many conditional sections hold.
func TestConditions(t *testing.T) {
	t.Parallel()
	conditions := []string{
		"IfDefine ON", "IfDefine on", "IfDefine ON ", `IfDefine "ON"`, "IfDefine !ON", "IfDefine OFF", "IfDefine !OFF", "IfDefine ${Name}", "ifdefine Value",
		"IfModule ssl_module", "IfModule SSL_module", "IfModule mod_ssl.c", "IfModule ssl.c", "IfModule event.c", "IfModule mod_mpm_event.c",
		"IfModule mpm_event_module", "IfModule version_module", "IfModule mod_so.c", "IfModule core.c", "IfModule mod_md.c", "IfModule !mod_md.c", `IfModule "mod_ssl.c"`,
		"IfFile here", `IfFile "here"`, "IfFile ./here", "IfFile tls", "IfFile nowhere", "IfFile !nowhere", "IfFile ${TREE}/here", "IfFile her?",
		"IfVersion VERSION", "IfVersion 2.4", "IfVersion = VERSION", "IfVersion == VERSION", "IfVersion >= 2.4", "IfVersion > 2.4.0", "IfVersion < 2.4.999",
		"IfVersion <= 2", "IfVersion !>= 2.4.999", "IfVersion ~ 4.", "IfVersion = /^2\\.4/", "IfVersion !~ ^3", "IfVersion ~ ^3", `IfVersion >= "2.4"`,
	}
	var config strings.Builder
	config.WriteString("Include mods\nServerName main.test\nErrorLog ${TREE}/error.log\nPidFile ${TREE}/pid\nMutex file:${TREE}\nListen 127.0.0.1:2\n" +
		"Define ON\nDefine name VALUE\nDefine VALUE\n")
	var all []string
	o := treeOptions(tree(t))
	o.Version = version(t)
	for i, c := range conditions {
		c = strings.ReplaceAll(c, "VERSION", o.Version)
		section, _, _ := strings.Cut(c, " ")
		path := fmt.Sprintf("%s/tls/%02d", o.ServerRoot, i)
		fmt.Fprintf(&config, "<%s>\nSSLCertificateFile %s\n</%s>\n", c, path, section)
		all = append(all, path)
	}
	o.Config = filepath.Join(o.ServerRoot, "conditions.conf")
	lay(t, append(all, filepath.Join(o.ServerRoot, "here"))...)
	if err := os.WriteFile(o.Config, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ours := apacheconf.Parse(disk{}, o)
	if len(ours.Faults)+len(ours.Notes) > 0 {
		t.Errorf("faults %v, notes %v", ours.Faults, ours.Notes)
	}
	theirs := certificates(httpd(t, o, "-D", "DUMP_CERTS"))
	for i, path := range all {
		if got, want := slices.Contains(ours.Certificates, path), slices.Contains(theirs, path); got != want {
			t.Errorf("<%s>: %v, httpd says %v", conditions[i], got, want)
		}
	}
}
