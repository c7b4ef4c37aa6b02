package httpapi_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/httpapi"
	"github.com/certferry/certferry/hub/internal/intent"
)

// What the daemon passes in fits.
var (
	_ httpapi.Data    = (*database.DB)(nil)
	_ httpapi.Intent  = (*intent.Service)(nil)
	_ httpapi.Fleet   = (*gitstore.Store)(nil)
	_ httpapi.Commits = (*gitstore.Store)(nil)
)

// schema is the part of JSON Schema that the document uses.
type schema struct {
	Ref                  string             `json:"$ref"`
	Type                 string             `json:"type"`
	Format               string             `json:"format"`
	Enum                 []any              `json:"enum"`
	Required             []string           `json:"required"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties any                `json:"additionalProperties"`
	Items                *schema            `json:"items"`
}

type document struct {
	OpenAPI    string                                     `json:"openapi"`
	Paths      map[string]map[string]*documentedOperation `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
}

type documentedOperation struct {
	OperationID string                         `json:"operationId"`
	Summary     string                         `json:"summary"`
	Security    []map[string][]string          `json:"security"`
	Responses   map[string]*documentedResponse `json:"responses"`
	RequestBody *struct{}                      `json:"requestBody"`
}

type documentedResponse struct {
	Content map[string]struct {
		Schema *schema `json:"schema"`
	} `json:"content"`
}

var theDocument = sync.OnceValues(func() (*document, error) {
	raw, err := httpapi.Document()
	if err != nil {
		return nil, err
	}
	d := &document{}
	return d, json.Unmarshal(raw, d)
})

// checkContract holds an answer against the document. Each request of each test goes through it.
func checkContract(method, path string, r reply) error {
	d, err := theDocument()
	if err != nil {
		return err
	}
	op := d.find(method, path)
	if op == nil || r.status == 304 || method == "HEAD" {
		return nil
	}
	documented, ok := op.Responses[strconv.Itoa(r.status)]
	if !ok {
		return fmt.Errorf("%s answers %d, which the document does not know: %s", op.OperationID, r.status, r.body)
	}
	if len(documented.Content) == 0 {
		if len(r.body) > 0 {
			return fmt.Errorf("%s answers %d with a body", op.OperationID, r.status)
		}
		return nil
	}
	content, ok := documented.Content[r.header.Get("Content-Type")]
	if !ok {
		return fmt.Errorf("%s answers %d as %s", op.OperationID, r.status, r.header.Get("Content-Type"))
	}
	if !strings.Contains(r.header.Get("Content-Type"), "json") {
		return nil
	}
	var v any
	if err := json.Unmarshal(r.body, &v); err != nil {
		return fmt.Errorf("%s: %w", op.OperationID, err)
	}
	return d.check(content.Schema, v, op.OperationID)
}

func (d *document) find(method, path string) *documentedOperation {
	path, _, _ = strings.Cut(path, "?")
	parts := strings.Split(path, "/")
	var best *documentedOperation
	fixed := -1
	for pattern, methods := range d.Paths {
		op := methods[strings.ToLower(method)]
		want := strings.Split(pattern, "/")
		if op == nil || len(want) != len(parts) {
			continue
		}
		n := 0
		for i, p := range want {
			if strings.HasPrefix(p, "{") {
				continue
			}
			if p != parts[i] {
				n = -1
				break
			}
			n++
		}
		if n > fixed {
			best, fixed = op, n
		}
	}
	return best
}

// check validates a value; at names its place.
func (d *document) check(s *schema, v any, at string) error {
	if s == nil {
		return fmt.Errorf("%s: no schema", at)
	}
	if s.Ref != "" {
		return d.check(d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")], v, at)
	}
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		return fmt.Errorf("%s: %v is none of %v", at, v, s.Enum)
	}
	switch value := v.(type) {
	case map[string]any:
		return d.checkObject(s, value, at)
	case []any:
		if s.Type != "array" {
			return fmt.Errorf("%s: a list, not %s", at, s.Type)
		}
		for i, item := range value {
			if err := d.check(s.Items, item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case string:
		if s.Type != "string" {
			return fmt.Errorf("%s: a string, not %s", at, s.Type)
		}
		if s.Format == "date-time" && !strings.HasSuffix(value, "Z") {
			return fmt.Errorf("%s: the time %s is not in UTC", at, value)
		}
	case float64:
		if s.Type != "integer" && s.Type != "number" {
			return fmt.Errorf("%s: a number, not %s", at, s.Type)
		}
	case bool:
		if s.Type != "boolean" {
			return fmt.Errorf("%s: a boolean, not %s", at, s.Type)
		}
	case nil:
		return fmt.Errorf("%s: null", at)
	}
	return nil
}

func (d *document) checkObject(s *schema, object map[string]any, at string) error {
	if s.Type != "object" {
		return fmt.Errorf("%s: an object, not %s", at, s.Type)
	}
	for _, key := range s.Required {
		if _, ok := object[key]; !ok {
			return fmt.Errorf("%s: %s is missing", at, key)
		}
	}
	extra, hasExtra := s.AdditionalProperties.(map[string]any)
	for key, value := range object {
		property, ok := s.Properties[key]
		switch {
		case ok:
		case hasExtra:
			kind, _ := extra["type"].(string)
			property = &schema{Type: kind}
		case s.AdditionalProperties == true:
			continue
		default:
			return fmt.Errorf("%s: the document does not know %s", at, key)
		}
		if err := d.check(property, value, at+"."+key); err != nil {
			return err
		}
	}
	return nil
}

// TestOpenAPI holds the document against house rules that the generator cannot know.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	d, err := theDocument()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1") {
		t.Errorf("OpenAPI %s", d.OpenAPI)
	}
	for path, methods := range d.Paths {
		if !strings.HasPrefix(path, "/api/v1/") {
			t.Errorf("%s is not below /api/v1", path)
		}
		for method, op := range methods {
			want := []string{"422", "429", "500", "503"}
			if len(op.Security) > 0 {
				want = append(want, "401", "403")
			}
			if strings.Contains(path, "{") {
				want = append(want, "404")
			}
			if op.RequestBody != nil {
				want = append(want, "400", "408", "413", "415")
			}
			for _, status := range want {
				if op.Responses[status] == nil || op.Responses[status].Content["application/problem+json"].Schema == nil {
					t.Errorf("%s does not list %s", op.OperationID, status)
				}
			}
			if op.Summary == "" || op.Security == nil || !slices.Contains([]string{"get", "post", "put", "delete"}, method) {
				t.Errorf("%s %s: summary %q, security %v", method, path, op.Summary, op.Security)
			}
		}
	}
	raw, err := httpapi.Document()
	if err != nil {
		t.Fatal(err)
	}
	for _, banned := range []string{`"$schema"`, `"null"`} {
		if strings.Contains(string(raw), banned) {
			t.Errorf("the document holds %s", banned)
		}
	}
}
