package manifest_test

import (
	"fmt"
	"testing"

	"github.com/certferry/certferry/gitstore/manifest"
)

// TestFaults finds the line of everything that is wrong with a file.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"syntax":           {"apiVersion: certferry/v1\n\tkind: x\n", "[2 ]"},
		"unknown key":      {"apiVersion: certferry/v1\nkind: Certificate\nname: a\nnames: [a.test]\nissuer: x\ncolour: red\n", "[6 ]"},
		"two unknown keys": {"kind: Certificate\ncolour: red\nname: a\nsize: 3\n", "[2  4 ]"},
		"two faults": {
			"apiVersion: certferry/v1\nkind: Certificate\nname: a\nnames:\n  - a.test\n  - '*'\nissuer: x\nkeyType: dsa\n",
			"[6 names[1] 8 keyType]",
		},
		"placement": {
			"apiVersion: certferry/v1\nkind: Certificate\nname: a\nnames: [a.test]\nissuer: x\ndeployments:\n  - server: a\n    deployer: nginx\n    target: UPPER\n",
			"[7 deployments[0]]",
		},
		"empty": {"", "[0 ]"},
	} {
		_, err := manifest.DecodeCertificate([]byte(tc.text))
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		var got []string
		for _, f := range manifest.Faults(err) {
			got = append(got, fmt.Sprintf("%d %s", f.Line, f.Key))
			if f.Message == "" || f.String() == "" {
				t.Errorf("%s: a fault says nothing", name)
			}
		}
		if fmt.Sprint(got) != tc.want {
			t.Errorf("%s: got %v, want %s (%v)", name, got, tc.want, err)
		}
	}
	if got := manifest.Faults(nil); got != nil {
		t.Errorf("got %v for no error", got)
	}
	if got := manifest.LineOf([]byte("a: 1\nb:\n  - c: 2\n    d: 3\n"), "b[0].d"); got != 4 {
		t.Errorf("got line %d, want 4", got)
	}
	if got := manifest.LineOf([]byte("\t"), "b"); got != 0 {
		t.Errorf("got line %d, want none", got)
	}
}
