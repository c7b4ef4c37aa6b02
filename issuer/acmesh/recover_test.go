package acmesh_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certferry/certferry/issuer/issuertest"
)

// TestRecoverBelievesNoHook: hooks can write in the folder of their order. What they write there names no credential, no
// hook and no order that the hub did not write down itself.
func TestRecoverBelievesNoHook(t *testing.T) {
	t.Parallel()
	const ours, foreign = "_acme-challenge.ours.test", "_acme-challenge.foreign.test"
	for name, record := range map[string]string{
		"an order":         `{"order_id":"ours","credentials":["ours"],"hooks":{"` + ours + `":"` + issuertest.HookName + `"}}`,
		"nothing recorded": "",
	} {
		w := newWorld(t, issuertest.PebbleConfig{})
		w.pebble.DNS.AddDNSTXTRecord(ours, "v1")
		w.pebble.DNS.AddDNSTXTRecord(foreign, "v2")
		marker, evil := filepath.Join(t.TempDir(), "marker"), filepath.Join(t.TempDir(), "evil.sh")
		dir := filepath.Join(w.cfg.WorkDir, "certferry-orders", "ours-1")
		err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(evil, []byte("id >"+marker+"\n"), 0o600))
		for file, text := range map[string]string{
			"run.json":  `{"order_id":"foreign","credentials":["foreign"],"hooks":{"` + foreign + `":"` + issuertest.HookName + `"}}`,
			"dns.map":   ours + " " + issuertest.HookName + " " + evil + "\n" + foreign + " " + issuertest.HookName + " " + evil + "\n",
			"dns.added": ours + " v1\n" + foreign + " v2\n" + ours + " $(id)\n", "records.sh": "id >" + marker + "\n", "tmp": "x",
		} {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
		}
		if record != "" {
			err = errors.Join(err, os.WriteFile(dir+".json", []byte(record), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		var asked []string
		left, err := w.issuer.Recover(t.Context(), func(name string) (map[string]string, error) {
			asked = append(asked, name)
			return w.dns("x").Credentials, nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if record == "" && (len(left) > 0 || len(asked) > 0) || record != "" && (len(left) != 1 || left[0].OrderID != "ours" || !slices.Equal(asked, []string{"ours"})) {
			t.Errorf("%s: %+v, asked for %q", name, left, asked)
		}
		if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: another hook was run", name)
		}
		if have := w.pebble.DNS.GetDNSTXTRecords(foreign); len(have) == 0 { // Pebbles share a DNS server
			t.Errorf("%s: a record of nobody's order was removed", name)
		}
		if have := w.pebble.DNS.GetDNSTXTRecords(ours); record != "" && len(have) > 0 {
			t.Errorf("%s: its own record is left", name)
		}
		if strings.Contains(w.log.String(), "foreign") {
			t.Errorf("%s: logged\n%s", name, w.log)
		}
		w.leavesNothing(t, "canary")
	}
}
