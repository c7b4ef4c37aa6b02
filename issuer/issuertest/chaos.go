// This file stands between a client and Pebble and spoils chosen answers, as CAs, their front ends and networks do.

package issuertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
)

// The parts of Pebble's ACME API that a Fault may stand at, as they are in its URLs.
const (
	AtNewAccount = "/sign-me-up"
	AtNewOrder   = "/order-plz"
	AtOrder      = "/my-order/"
	AtAuthz      = "/authZ/"
	AtFinalize   = "/finalize-order/"
	AtDownload   = "/certZ/"
)

// Fault spoils answers of one part of the API.
type Fault struct {
	// At is the part of the API.
	At string
	// Times is how many answers are spoilt, 0 for all.
	Times int
	// Act answers in place of next, the API.
	Act func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

// Inject makes a PebbleConfig.Wrap of faults. The first that fits a request and is not used up answers it.
func Inject(faults ...Fault) func(http.Handler) http.Handler {
	used := make([]atomic.Int64, len(faults))
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for n, f := range faults {
				if strings.Contains(r.URL.Path, f.At) && (f.Times == 0 || used[n].Add(1) <= int64(f.Times)) {
					f.Act(w, r, next)
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Problem answers with a problem document of the type kind, such as rateLimited (RFC 8555 §6.7). retryAfter is in
// seconds, 0 for no such header.
func Problem(status int, kind, detail string, retryAfter int) func(http.ResponseWriter, *http.Request, http.Handler) {
	body, _ := json.Marshal(map[string]any{ // texts and a number
		"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status,
	})
	return answer(status, "application/problem+json", string(body), retryAfter)
}

// Page answers with what is no ACME document, as a load balancer does.
func Page(status, retryAfter int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return answer(status, "text/html", "<html><h1>"+http.StatusText(status)+"</h1> it's 'quoted' & \"odd\"\n{</html>", retryAfter)
}

// Document answers with a document of the CA.
func Document(body string) func(http.ResponseWriter, *http.Request, http.Handler) {
	return answer(http.StatusOK, "application/json", body, 0)
}

// answer sends a nonce too, as each answer of a CA does: a made-up one would add a fault of its own.
func answer(status int, kind, body string, retryAfter int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		nonce := httptest.NewRecorder()
		next.ServeHTTP(nonce, httptest.NewRequestWithContext(r.Context(), http.MethodHead, "/nonce-plz", nil))
		w.Header().Set("Replay-Nonce", nonce.Header().Get("Replay-Nonce"))
		w.Header().Set("Content-Type", kind)
		if retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		}
		w.WriteHeader(status)
		own := strings.ReplaceAll(body, "https://localhost/", "https://"+r.Host+"/") // an address is one of the CA itself
		_, _ = io.WriteString(w, own)                                                //nolint:gosec // no browser reads it, and a client that is gone is no fault of ours
	}
}

// Drop closes the connection without an answer.
func Drop(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// Hang answers nothing until the client gives up.
func Hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body) // the server notices that the client went only once the body is read
	<-r.Context().Done()
}

// Rewrite lets the API answer and changes the body.
func Rewrite(change func(body []byte) []byte) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		recorded := httptest.NewRecorder()
		next.ServeHTTP(recorded, r)
		for name, values := range recorded.Header() {
			if name != "Content-Length" {
				w.Header()[name] = values
			}
		}
		w.WriteHeader(recorded.Code)
		_, _ = w.Write(change(recorded.Body.Bytes())) // see answer
	}
}

// FirstForAll answers each request with the body of the first: another order's certificate for every other order.
func FirstForAll() func(http.ResponseWriter, *http.Request, http.Handler) {
	var first atomic.Pointer[[]byte]
	return Rewrite(func(body []byte) []byte {
		body = bytes.Clone(body)
		first.CompareAndSwap(nil, &body)
		return *first.Load()
	})
}

// InvalidAuthz is the document of an authorization that failed with a problem of the type kind.
func InvalidAuthz(name, kind, detail string) string {
	return fmt.Sprintf(`{"status":"invalid","expires":"2099-01-01T00:00:00Z","identifier":{"type":"dns","value":%q},`+
		`"challenges":[{"type":"dns-01","url":"https://localhost/chalZ/1","token":"t","status":"invalid",`+
		`"error":{"type":"urn:ietf:params:acme:error:%s","detail":%q,"status":403}}]}`, name, kind, detail)
}

// InvalidOrder is the document of an order that failed with a problem of the type kind after it was finalized, as CAs
// that sign in the background answer.
func InvalidOrder(name, kind, detail string) string {
	return fmt.Sprintf(`{"status":"invalid","expires":"2099-01-01T00:00:00Z","identifiers":[{"type":"dns","value":%q}],`+
		`"authorizations":[],"finalize":"https://localhost/finalize-order/1",`+
		`"error":{"type":"urn:ietf:params:acme:error:%s","detail":%q,"status":403}}`, name, kind, detail)
}
