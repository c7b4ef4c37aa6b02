package manifest_test

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/certferry/certferry/gitstore/manifest"
)

var updateSchemas = flag.Bool("update-schemas", false, "write docs/reference/schemas")

func schemaPath(kind string) string {
	return filepath.Join("..", "..", "docs", "reference", "schemas", kind+".schema.json")
}

// TestSchemasAreCurrent: run with -update-schemas after a change of the types or their comments.
func TestSchemasAreCurrent(t *testing.T) {
	t.Parallel()
	g := newGenerator(t)
	for _, kind := range slices.Sorted(maps.Keys(documents)) {
		got := g.document(documents[kind].kind, documents[kind].typ)
		if *updateSchemas {
			if err := os.WriteFile(schemaPath(kind), got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(schemaPath(kind))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code says: go test ./gitstore/manifest -run TestSchemasAreCurrent -update-schemas", schemaPath(kind))
		}
	}
	if unused := g.unusedKeys(); len(unused) > 0 {
		t.Errorf("the generator has rules for keys that no type has: %v", unused)
	}
}

// compiled reads the schemas as an editor does: strictly as draft 2020-12.
func compiled(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	all := map[string]*jsonschema.Schema{}
	for kind := range documents {
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft2020)
		c.AssertFormat()
		file, err := os.Open(schemaPath(kind))
		if err != nil {
			t.Fatal(err)
		}
		data, err := jsonschema.UnmarshalJSON(file)
		if err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		if err := c.AddResource(kind, data); err != nil {
			t.Fatal(err)
		}
		if all[kind], err = c.Compile(kind); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// decoders are those of the kinds that have a schema.
var decoders = map[string]func([]byte) error{
	"certificate":        func(b []byte) error { _, err := manifest.DecodeCertificate(b); return err },
	"server":             func(b []byte) error { _, err := manifest.DecodeServer(b); return err },
	"issuer":             func(b []byte) error { _, err := manifest.DecodeIssuer(b); return err },
	"issued-certificate": func(b []byte) error { _, err := manifest.DecodeIssued(b); return err },
	"rollout":            func(b []byte) error { _, err := manifest.DecodeRollout(b); return err },
}

// asEditor reads YAML as yaml-language-server does: YAML 1.2, where a time is text.
func asEditor(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return untimed(v)
}

func untimed(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case []any:
		for i := range v {
			v[i] = untimed(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = untimed(v[key])
		}
	case map[any]any: // a key that is no text; JSON has none such
		return map[string]any{"key": "is no text"}
	}
	return v
}

// TestSchemasAgree holds decoder and schema against each other: what is valid is so for both, and what is not is
// refused by both, as far as a schema can say it. A file whose name starts with only-decoder- is beyond a schema.
func TestSchemasAgree(t *testing.T) {
	t.Parallel()
	schemas := compiled(t)
	for kind, decode := range decoders {
		seen := 0
		for _, valid := range []bool{true, false} {
			for name, data := range fixtures(t, kind, valid) {
				seen++
				err, fault := decode(data), schemas[kind].Validate(asEditor(t, data))
				if (err == nil) != valid {
					t.Errorf("%s: the decoder says %v", name, err)
				}
				if beyond := strings.HasPrefix(name, "only-decoder-"); (fault == nil) != (valid || beyond) {
					t.Errorf("%s: the schema says %v", name, fault)
				}
			}
		}
		if seen < 6 {
			t.Errorf("%s: only %d fixtures", kind, seen)
		}
	}
}

// fixtures are the documents of testdata/KIND-valid.yaml or KIND-invalid.yaml: each starts with a line "--- # NAME".
func fixtures(t *testing.T, kind string, valid bool) map[string][]byte {
	t.Helper()
	name := map[bool]string{true: "valid", false: "invalid"}[valid]
	data, err := os.ReadFile(filepath.Join("testdata", "schema", kind+"-"+name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for part := range strings.SplitSeq("\n"+string(data), "\n--- # ") {
		name, text, ok := strings.Cut(part, "\n")
		if !ok || strings.TrimSpace(part) == "" {
			continue
		}
		if _, twice := all[name]; twice {
			t.Fatalf("%s: two fixtures are called %s", kind, name)
		}
		all[name] = []byte(text + "\n")
	}
	return all
}

// TestSchemasTakeWhatTheHubWrites: the canonical form of a full document of each kind is valid.
func TestSchemasTakeWhatTheHubWrites(t *testing.T) {
	t.Parallel()
	schemas := compiled(t)
	of := map[string]string{
		"certificate.yaml": "certificate", "server.yaml": "server", "issuer.yaml": "issuer", "issued.yaml": "issued-certificate",
	}
	for file, k := range kinds() {
		data, err := k.doc.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := schemas[of[file]].Validate(asEditor(t, data)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestSchemasTakeTheDocs: what the pages show as a document is one, for decoder and schema.
func TestSchemasTakeTheDocs(t *testing.T) {
	t.Parallel()
	schemas := compiled(t)
	kindOf := map[string]string{}
	for name, d := range documents {
		kindOf[d.kind] = name
	}
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "*", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "```") {
			body, isYAML := strings.CutPrefix(block, "yaml\n")
			var head struct{ Kind string }
			if i%2 == 0 || !isYAML || yaml.Unmarshal([]byte(body), &head) != nil || kindOf[head.Kind] == "" {
				continue
			}
			seen++
			kind := kindOf[head.Kind]
			if err := decoders[kind]([]byte(body)); err != nil {
				t.Errorf("%s shows a %s that is none: %v", page, kind, err)
			}
			if err := schemas[kind].Validate(asEditor(t, []byte(body))); err != nil {
				t.Errorf("%s shows a %s that its schema refuses: %v", page, kind, err)
			}
		}
	}
	if seen == 0 {
		t.Error("no page shows a document")
	}
}
