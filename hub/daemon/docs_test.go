// This file holds pages of the documentation against what they tell of.

package daemon

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/issuer/acmesh"
)

func page(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "docs"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestReferenceNamesEveryKey: what can be configured is in the table.
func TestReferenceNamesEveryKey(t *testing.T) {
	t.Parallel()
	text := page(t, "reference", "certferry-hub.md")
	for _, key := range Keys() {
		if !strings.Contains(text, "`"+key+"`") {
			t.Errorf("certferry-hub.md does not name %s", key)
		}
	}
}

// TestGuideNamesEveryDirectory: a list of directories of one's own takes the place of the known ones.
func TestGuideNamesEveryDirectory(t *testing.T) {
	t.Parallel()
	for _, text := range []string{page(t, "guide", "acme.md"), page(t, "zh-CN", "guide", "acme.md")} {
		for _, ca := range acmesh.KnownCAs() {
			if !strings.Contains(text, "  - "+ca.Directory+" ") {
				t.Errorf("acme.md does not name %s", ca.Directory)
			}
		}
	}
}

// TestFormatsNameEveryKey: the tables of formats.md have the keys that the schemas have.
func TestFormatsNameEveryKey(t *testing.T) {
	t.Parallel()
	text := page(t, "reference", "formats.md")
	for kind, file := range map[string]string{
		"Certificate": "certificate", "Server": "server", "Issuer": "issuer", "IssuedCertificate": "issued-certificate", "Rollout": "rollout",
	} {
		_, row, found := strings.Cut(text, "| `"+kind+"` |")
		row, _, ended := strings.Cut(row, "\n")
		if !found || !ended {
			t.Errorf("formats.md has no row of %s", kind)
			continue
		}
		var schema map[string]any
		if err := json.Unmarshal([]byte(page(t, "reference", "schemas", file+".schema.json")), &schema); err != nil {
			t.Fatal(err)
		}
		keysOf(schema, func(key string) {
			if key != "apiVersion" && key != "kind" && !strings.Contains(row, "`"+key+"`") {
				t.Errorf("the row of %s does not name %s", kind, key)
			}
		})
	}
}

// keysOf calls do for each property that a part of a JSON Schema names.
func keysOf(part any, do func(key string)) {
	switch part := part.(type) {
	case map[string]any:
		properties, _ := part["properties"].(map[string]any)
		for key := range properties {
			do(key)
		}
		for _, inner := range part {
			keysOf(inner, do)
		}
	case []any:
		for _, inner := range part {
			keysOf(inner, do)
		}
	}
}
