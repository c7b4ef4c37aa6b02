package manifest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
)

// This file makes the JSON Schemas that editors use. Keys come from the Go types, descriptions from their comments,
// and what a key may hold from the table below, which schema_test.go holds against the decoders.

// schema is a JSON Schema, or a part of one.
type schema map[string]any

// documents are the kinds that have a schema, by the file's name.
var documents = map[string]struct {
	kind string
	typ  reflect.Type
}{
	"certificate":        {manifest.KindCertificate, reflect.TypeFor[manifest.Certificate]()},
	"server":             {manifest.KindServer, reflect.TypeFor[manifest.Server]()},
	"issuer":             {manifest.KindIssuer, reflect.TypeFor[manifest.Issuer]()},
	"issued-certificate": {manifest.KindIssuedCertificate, reflect.TypeFor[manifest.IssuedCertificate]()},
	"rollout":            {manifest.KindRollout, reflect.TypeFor[manifest.Rollout]()},
}

const (
	labelText = `[A-Za-z0-9._/-]`
	dnsLabel  = `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`
)

func pattern(p string) schema { return schema{"type": "string", "pattern": p} }

func enum(values ...any) schema { return schema{"enum": values} }

func hexDigits(n int) schema { return pattern(fmt.Sprintf("^[0-9a-f]{%d}$", n)) }

// name is what ValidName takes.
func name() schema {
	return schema{
		"type": "string", "maxLength": 100, "pattern": `^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`,
		"not": schema{"pattern": `\.\.|\.lock$`},
	}
}

// dnsNames is what validNames takes.
func dnsNames() schema {
	return schema{
		"type": "array", "minItems": 1, "maxItems": 100, "uniqueItems": true,
		"items": schema{
			"type": "string", "maxLength": 253,
			"pattern": `^(\*\.` + dnsLabel + `\.)?` + dnsLabel + `(\.` + dnsLabel + `)*$`,
			"not":     schema{"pattern": `(^|\.)[0-9]+$`},
		},
	}
}

// text is what validText takes.
func text() schema {
	return schema{"type": "string", "maxLength": 1024, "pattern": `^[^\x00-\x1f\x7f` + "\u2028\u2029" + `]*$`}
}

// instant is a time in whole seconds in UTC.
func instant() schema {
	return schema{"type": "string", "format": "date-time", "pattern": `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`}
}

// alias is a DNS name that may start with an underscore.
func alias() schema {
	return schema{"type": "string", "maxLength": 253, "pattern": `^_?` + dnsLabel + `(\.` + dnsLabel + `)*$`, "not": schema{"pattern": `(^|\.)[0-9]+$`}}
}

func reasons() schema {
	s := schema{}
	var all []any
	for _, reason := range slices.Sorted(maps.Keys(manifest.RevocationReasons)) {
		all = append(all, reason)
	}
	s["enum"] = all
	return s
}

func keyTypes() schema {
	return enum("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096")
}

func waves() schema {
	return schema{"type": "array", "maxItems": 20, "items": schema{"anyOf": []any{
		schema{"type": "integer", "minimum": 1, "maximum": 1_000_000},
		schema{"type": "string", "pattern": `^([1-9][0-9]?|100)%$`},
	}}}
}

// keys says what a key may hold, by type and key.
func keys() map[string]schema {
	return map[string]schema{
		"Certificate.name":             name(),
		"Certificate.names":            dnsNames(),
		"Certificate.keyType":          keyTypes(),
		"Certificate.issuer":           name(),
		"Certificate.review":           enum("none", "required", "two-person"),
		"Certificate.waves":            waves(),
		"Certificate.deployments":      {"uniqueItems": true},
		"Certificate.keyCustody":       enum("hub", "server"),
		"Certificate.secondKeyType":    keyTypes(),
		"Certificate.fallbackIssuer":   name(),
		"Certificate.profile":          pattern(`^[A-Za-z0-9._-]{0,64}$`),
		"Certificate.preferredChain":   pattern(`^[A-Za-z0-9 .()-]{0,128}$`),
		"NamedChallenge.names":         dnsNames(),
		"Challenge.type":               enum("http-01", "dns-01", "tls-alpn-01"),
		"Challenge.alias":              alias(),
		"Challenge.domainAlias":        alias(),
		"Challenge.method":             enum("webroot", "standalone", "stateless"),
		"Challenge.webroot":            {"type": "string", "maxLength": 500, "pattern": `^(/[A-Za-z0-9._-]+)+$`, "not": schema{"pattern": `/\.\.?(/|$)`}},
		"Challenge.hook":               {"type": "string", "maxLength": 104, "pattern": `^dns_[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`},
		"Challenge.credential":         name(),
		"Renewal.daysBeforeExpiry":     {"minimum": 0, "maximum": 365},
		"Renewal.key":                  enum("new", "keep"),
		"Renewal.pausedReason":         text(),
		"Placement.server":             name(),
		"Placement.selector":           {"type": "string", "minLength": 1, "maxLength": 1024},
		"Placement.deployer":           name(),
		"Placement.target":             name(),
		"Placement.secondTarget":       name(),
		"Server.name":                  name(),
		"Server.labels":                {"maxProperties": 64, "propertyNames": schema{"pattern": "^" + labelText + "{1,63}$"}, "additionalProperties": pattern("^" + labelText + "{0,63}$")},
		"Hold.commit":                  hexDigits(40),
		"Hold.reason":                  text(),
		"Hold.by":                      {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": text()["pattern"]},
		"Hold.since":                   instant(),
		"Issuer.name":                  name(),
		"Issuer.type":                  enum("privateca", "acmesh"),
		"ACMEIssuer.directory":         {"type": "string", "maxLength": 500, "pattern": `^https://[A-Za-z0-9:/._~%?=+\[\]-]+$`},
		"ACMEIssuer.email":             {"type": "string", "maxLength": 254, "pattern": `^[A-Za-z0-9._+-]+@` + dnsLabel + `(\.` + dnsLabel + `)+$`},
		"ACMEIssuer.eabCredential":     name(),
		"ACMEIssuer.profile":           pattern(`^[A-Za-z0-9._-]{0,64}$`),
		"ACMEIssuer.preferredChain":    pattern(`^[A-Za-z0-9 .()-]{0,128}$`),
		"PrivateCAIssuer.ca":           name(),
		"PrivateCAIssuer.lifetime":     pattern(`^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`),
		"IssuedCertificate.name":       name(),
		"IssuedCertificate.names":      dnsNames(),
		"IssuedCertificate.issuer":     name(),
		"IssuedCertificate.keyType":    keyTypes(),
		"IssuedCertificate.serial":     pattern(`^[0-9a-f]{1,64}$`),
		"IssuedCertificate.notBefore":  instant(),
		"IssuedCertificate.notAfter":   instant(),
		"IssuedCertificate.spkiSha256": hexDigits(64),
		"IssuedCertificate.leafSha256": hexDigits(64),
		"IssuedCertificate.keyCustody": enum("server"),
		"IssuedCertificate.keyServer":  name(),
		"Revocation.at":                instant(),
		"Revocation.reason":            reasons(),
		"Revocation.by":                text(),
		"Rollout.name":                 name(),
		"Rollout.from":                 hexDigits(40),
		"Rollout.fromLeafSha256":       hexDigits(64),
		"Rollout.leafSha256":           hexDigits(64),
		"Rollout.waves":                waves(),
		"Rollout.wave":                 {"minimum": 1, "maximum": 1_000_000},
		"Rollout.state":                enum("running", "paused", "failed"),
		"Rollout.reason":               text(),
		"Rollout.startedAt":            instant(),
		"Rollout.waveStartedAt":        instant(),
	}
}

// whole says what the keys of an object must be together.
func whole() map[string][]any {
	absent := func(keys ...string) schema {
		all := make([]any, 0, len(keys))
		for _, key := range keys {
			all = append(all, schema{"required": []any{key}})
		}
		return schema{"not": schema{"anyOf": all}}
	}
	ofType := func(value string, then schema) schema {
		return schema{
			"if":   schema{"properties": schema{"type": schema{"const": value}}, "required": []any{"type"}},
			"then": then,
		}
	}
	dns := absent("method", "webroot")
	dns["required"] = []any{"hook"}
	oneAlias := schema{"not": schema{"required": []any{"alias", "domainAlias"}}}
	http := absent("hook", "credential", "alias", "domainAlias")
	http["required"] = []any{"method"}
	alpn := absent("hook", "credential", "alias", "domainAlias", "method", "webroot")
	isHTTP := schema{"required": []any{"challenge"}, "not": schema{"required": []any{"challenges"}}, "properties": schema{"challenge": schema{
		"required": []any{"type"}, "properties": schema{"type": schema{"enum": []any{"http-01", "tls-alpn-01"}}},
	}}}
	challenge := []any{
		oneAlias,
		ofType("dns-01", dns),
		ofType("http-01", http),
		ofType("tls-alpn-01", alpn),
		schema{
			"if":   schema{"properties": schema{"method": schema{"const": "webroot"}}, "required": []any{"method"}},
			"then": schema{"required": []any{"webroot"}}, "else": absent("webroot"),
		},
	}
	return map[string][]any{
		"Certificate": {schema{
			"if":   isHTTP,
			"then": schema{"properties": schema{"names": schema{"items": schema{"not": schema{"pattern": `^\*`}}}}},
		}},
		"Challenge": challenge,
		"NamedChallenge": append(slices.Clone(challenge), schema{
			"if":   schema{"properties": schema{"type": schema{"enum": []any{"http-01", "tls-alpn-01"}}}},
			"then": schema{"properties": schema{"names": schema{"items": schema{"not": schema{"pattern": `^\*`}}}}},
		}),
		"Placement": {schema{"oneOf": []any{schema{"required": []any{"server"}}, schema{"required": []any{"selector"}}}}},
		"Issuer": {
			ofType("acmesh", schema{"required": []any{"acme"}, "not": schema{"required": []any{"privateCA"}}}),
			ofType("privateca", absent("acme")),
		},
	}
}

// optional keys may be absent although they are always written.
var optional = map[string]bool{"apiVersion": true, "kind": true, "IssuedCertificate.keyType": true, "Rollout.waves": true}

// generator makes schemas.
type generator struct {
	t        *testing.T
	comments map[string]string
	keys     map[string]schema
	used     map[string]bool
	whole    map[string][]any
}

func newGenerator(t *testing.T) *generator {
	t.Helper()
	return &generator{t: t, comments: comments(t), keys: keys(), used: map[string]bool{}, whole: whole()}
}

// document makes the schema of one kind.
func (g *generator) document(kind string, typ reflect.Type) []byte {
	g.t.Helper()
	s := g.object(typ)
	properties, ok := s["properties"].(schema)
	if !ok {
		g.t.Fatalf("%s has no properties", kind)
	}
	properties["apiVersion"] = schema{"const": manifest.APIVersion, "description": "The version of the format."}
	properties["kind"] = schema{"const": kind, "description": "The kind of document."}
	s["dependentRequired"] = schema{"apiVersion": []any{"kind"}, "kind": []any{"apiVersion"}}
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = kind
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		g.t.Fatal(err)
	}
	return out.Bytes()
}

func (g *generator) object(typ reflect.Type) schema {
	g.t.Helper()
	properties, required := schema{}, []any{}
	for field := range typ.Fields() {
		key, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if options == "inline" {
			inner := g.object(field.Type)
			if more, ok := inner["properties"].(schema); ok {
				maps.Copy(properties, more)
			}
			if more, ok := inner["required"].([]any); ok {
				required = append(required, more...)
			}
			continue
		}
		if key == "apiVersion" || key == "kind" {
			continue
		}
		full := typ.Name() + "." + key
		property := g.value(field.Type)
		maps.Copy(property, g.keys[full])
		g.used[full] = true
		if text := g.comments[typ.Name()+"."+field.Name]; text != "" {
			property["description"] = strings.Replace(text, field.Name, key, 1)
		}
		properties[key] = property
		if options == "" && !optional[full] {
			required = append(required, key)
		}
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if text := g.comments[typ.Name()]; text != "" {
		s["description"] = text
	}
	if len(required) > 0 {
		s["required"] = required
	}
	if all := g.whole[typ.Name()]; all != nil {
		s["allOf"] = all
	}
	return s
}

// value makes the schema of a value from its type alone.
func (g *generator) value(typ reflect.Type) schema {
	g.t.Helper()
	switch {
	case typ == reflect.TypeFor[time.Time](), typ == reflect.TypeFor[manifest.Wave]():
		return schema{}
	case typ.Kind() == reflect.Pointer:
		return g.value(typ.Elem())
	}
	switch typ.Kind() {
	case reflect.Struct:
		return g.object(typ)
	case reflect.Slice:
		return schema{"type": "array", "items": g.value(typ.Elem())}
	case reflect.Map:
		return schema{"type": "object"}
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int:
		return schema{"type": "integer"}
	default:
		g.t.Fatalf("no schema for %s", typ)
		return nil
	}
}

// comments reads what stands above the types and their fields.
func comments(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, file := range []string{"intent.go", "rollout.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				typ, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				all[typ.Name.Name] = line(g.Doc)
				fields, ok := typ.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, field := range fields.Fields.List {
					for _, n := range field.Names {
						all[typ.Name.Name+"."+n.Name] = line(field.Doc)
					}
				}
			}
		}
	}
	return all
}

func line(doc *ast.CommentGroup) string { return strings.Join(strings.Fields(doc.Text()), " ") }

// unusedKeys are entries of the table that no type has.
func (g *generator) unusedKeys() []string {
	var unused []string
	for _, key := range slices.Sorted(maps.Keys(g.keys)) {
		if !g.used[key] {
			unused = append(unused, key)
		}
	}
	return unused
}
