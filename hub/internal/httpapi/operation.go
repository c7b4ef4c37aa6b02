// How an operation is declared, and the OpenAPI document that comes of it.

package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certferry/certferry/hub/apiv1"
)

// operation declares one operation.
type operation struct {
	id, method, path, summary, tag string
	// status is that of success, 0 for 200.
	status int
	// media is the type of the answer where it is not JSON.
	media string
	// timeout bounds the work, 0 for operationTimeout.
	timeout time.Duration
}

// responses are what the document cannot know from the types.
func (o operation) responses() map[string]*huma.Response {
	if o.media == "" {
		return nil
	}
	text := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	return map[string]*huma.Response{"200": {Content: map[string]*huma.MediaType{o.media: text}}}
}

// bodyTimeout is how long the body of a request may take.
const bodyTimeout = 10 * time.Second

// add registers an operation. Whatever its handler answers as an error becomes a problem document.
func add[I, O any](s *server, o operation, handler func(ctx context.Context, c *call, in *I) (*O, error)) {
	s.registered = append(s.registered, o.id)
	huma.Register(s.api, huma.Operation{
		OperationID:                  o.id,
		Method:                       o.method,
		Path:                         apiv1.Prefix + o.path,
		Summary:                      o.summary,
		Tags:                         []string{o.tag},
		DefaultStatus:                o.status,
		Errors:                       errorsOf(o, hasBody[I]()),
		Security:                     securityOf(o.id),
		MaxBodyBytes:                 maxBody,
		BodyReadTimeout:              bodyTimeout,
		RejectUnknownQueryParameters: true,
		Responses:                    o.responses(),
	}, func(ctx context.Context, in *I) (*O, error) {
		c := callOf(ctx)
		ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.timeout, operationTimeout))
		defer cancel()
		out, err := handler(ctx, c, in)
		if err != nil {
			return nil, s.fail(ctx, c, err)
		}
		return out, nil
	})
}

// errorsOf lists what an operation may answer beside success.
func errorsOf(o operation, body bool) []int {
	list := []int{http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable}
	if access[o.id]&anonymous == 0 {
		list = append(list, http.StatusUnauthorized, http.StatusForbidden)
	}
	if strings.Contains(o.path, "{") {
		list = append(list, http.StatusNotFound)
	}
	if o.method == http.MethodGet {
		return list
	}
	if access[o.id]&anonymous != 0 {
		// What is in the body or cookie is the authority; a page of another site has none.
		list = append(list, http.StatusUnauthorized, http.StatusForbidden)
	}
	list = append(list, http.StatusConflict)
	if body {
		list = append(list, http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
			http.StatusUnsupportedMediaType)
	}
	return list
}

func hasBody[I any]() bool {
	_, ok := reflect.TypeFor[I]().FieldByName("Body")
	return ok
}

func securityOf(id string) []map[string][]string {
	switch allowed := access[id]; {
	case id == "refresh":
		return []map[string][]string{{"refreshCookie": {}}}
	case allowed&anonymous != 0:
		return []map[string][]string{}
	case allowed == agent:
		return []map[string][]string{{"agent": {}}}
	}
	return []map[string][]string{{"user": {}}}
}

func (s *server) humaConfig() huma.Config {
	cfg := huma.DefaultConfig("Certferry", "1")
	cfg.Info.Description = "The hub's API. Times are RFC 3339 in UTC, hashes lower-case hex, fingerprints 40 upper-case hex " +
		"digits. Errors are RFC 9457 problem documents that never repeat what was submitted; quote their request_id."
	cfg.Info.License = &huma.License{Name: "Apache-2.0", URL: "https://www.apache.org/licenses/LICENSE-2.0"}
	cfg.Servers = []*huma.Server{{URL: "/", Description: "This hub"}}
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath = "", "", ""
	cfg.CreateHooks = nil
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"user": {
			Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A person's access token, from login or refresh.",
		},
		"agent": {
			Type: "http", Scheme: "bearer", Description: "An agent's credential, from its registration.",
		},
		"refreshCookie": {
			Type: "apiKey", In: "cookie", Name: secureCookie, Description: "The refresh token, which login sets. Without TLS the cookie is named " + clearCookie + ".",
		},
	}
	cfg.Tags = []*huma.Tag{
		{Name: "session", Description: "Setup, login, logout."},
		{Name: "users", Description: "Accounts of people."},
		{Name: "agents", Description: "What agents send."},
		{Name: "servers", Description: "Machines that serve certificates."},
		{Name: "certificates", Description: "Wishes for certificates and what fulfils them."},
		{Name: "rollouts", Description: "How new issues go out: waves, review, and the way back for all."},
		{Name: "commits", Description: "The repository's history: what changed, who signed."},
		{Name: "credentials", Description: "Secrets for DNS providers and CAs: they come in and never go out."},
		{Name: "overview", Description: "Jobs, issuers, alerts, audit history and figures."},
	}
	return cfg
}

// Document answers the OpenAPI document, as docs/reference keeps it.
func Document() ([]byte, error) {
	return newServer(Config{Now: func() time.Time { return time.Time{} }}).document()
}

func (s *server) document() ([]byte, error) {
	raw, err := json.Marshal(s.api.OpenAPI())
	if err != nil {
		return nil, fmt.Errorf("encode OpenAPI document: %w", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("indent OpenAPI document: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func serveDocument(doc []byte) http.HandlerFunc {
	return conditional(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(doc)
	})).ServeHTTP
}
