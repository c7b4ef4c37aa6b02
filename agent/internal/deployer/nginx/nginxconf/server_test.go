// This file holds the parser against a real nginx: the tree is one that nginx takes, the same files are read, and
// what a regular expression finds in its dump is among our sites.

package nginxconf_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/deployer/nginx/nginxconf"
	"github.com/certferry/certferry/agent/internal/hostfs"
)

// recorder notes which files are read.
type recorder struct {
	*hostfs.FS
	read map[string]bool
}

func (r recorder) ReadFile(path string) ([]byte, error) {
	r.read[path] = true
	return r.FS.ReadFile(path)
}

// modules returns what of a tree the installed nginx cannot take, and the lines that load what it can.
func modules(t *testing.T, nginx string) (load string, without []string) {
	t.Helper()
	about, err := exec.Command(nginx, "-V").CombinedOutput()
	if err != nil {
		t.Fatalf("nginx -V: %v: %s", err, about)
	}
	without = []string{"40-lua.conf"} // Lua wants more than a module.
	for name, file := range map[string]string{"stream": "stream.conf", "mail": "mail.conf"} {
		object := ""
		if m := regexp.MustCompile(`--modules-path=(\S+)`).FindSubmatch(about); m != nil {
			object = filepath.Join(string(m[1]), "ngx_"+name+"_module.so")
		}
		if bytes.Contains(about, []byte("--with-"+name+" ")) {
			continue
		}
		if _, err := os.Stat(object); err == nil {
			load += "load_module " + object + ";\n"
		} else {
			without = append(without, file)
		}
	}
	if !bytes.Contains(about, []byte("--with-http_v3_module")) {
		without = append(without, "50-quic.conf")
	}
	return load, without
}

func TestRealNginx(t *testing.T) {
	t.Parallel()
	nginx := deployertest.Program(t, "nginx")
	load, without := modules(t, nginx)
	t.Logf("left out of the tree, for this nginx cannot take it: %v", without)
	b := deployertest.NewCA(t, time.Now()).Issue(t, "localhost")
	key, err := b.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	pair := slices.Concat(b.FullChainPEM(), key)

	dir := t.TempDir()
	extract(t, "testdata/tree.txtar", dir, func(name string, data []byte) []byte {
		switch {
		case slices.Contains(without, filepath.Base(name)):
			return nil
		case strings.HasSuffix(name, ".load"):
			return []byte(load)
		case len(data) == 0:
			return pair
		}
		return []byte(regexp.MustCompile(`/etc/(ssl|nginx)/`).ReplaceAllString(string(data), dir+"$0"))
	})
	config := filepath.Join(dir, "etc/nginx/nginx.conf")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	argv := []string{"-T", "-p", dir, "-c", config, "-e", "stderr"}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, nginx, argv...)
	cmd.Stderr = &stderr
	dump, err := cmd.Output()
	if err != nil {
		t.Fatalf("nginx refuses the tree: %v: %s", err, stderr.String())
	}

	files := recorder{hostfs.New(""), make(map[string]bool)}
	sites, _ := nginxconf.Parse(files, config)
	dumped := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^# configuration file (.+):$`).FindAllStringSubmatch(string(dump), -1) {
		dumped[m[1]] = true
	}
	if diff := cmp.Diff(dumped, files.read); diff != "" {
		t.Errorf("nginx and we read different files:\n%s", diff)
	}
	found := make(map[string]bool)
	for _, s := range sites {
		found[strings.TrimPrefix(s.Certificate, dir)] = true
	}
	// What a regular expression takes for a certificate and is none, or none by that name.
	wrong := map[string]bool{
		"/etc/ssl/commented.pem": true, "/etc/ssl/string.pem": true, "/etc/ssl/lua-comment.pem": true, "pem": true,
		"/etc/ssl/sni/$ssl_server_name.crt": true, "$by_name": true, "$base/$dir.pem": true, "data:$data_pem": true,
	}
	hits, wrongHits := make(map[string]bool), 0
	for _, m := range regexp.MustCompile(`ssl_certificate\s+["']?([^;"']+)`).FindAllStringSubmatch(string(dump), -1) {
		value := strings.TrimPrefix(m[1], dir)
		switch {
		case wrong[value]:
			wrongHits++
		case !found[value] && !found["/etc/nginx/"+value] && !strings.ContainsAny(value, "#\n") && value != "/etc/ssl/a name":
			t.Errorf("nginx -T names %q, which is not among the sites", value)
		default:
			hits[value] = true
		}
	}
	t.Logf("%d certificates found; a regular expression finds %d in nginx -T, and %d that are none", len(found), len(hits), wrongHits)
	if len(found) < 19 || wrongHits < 4 {
		t.Errorf("the tree lost its meaning: %d certificates, %d wrong hits", len(found), wrongHits)
	}
}
