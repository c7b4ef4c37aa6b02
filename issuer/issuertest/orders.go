// This file reads what clients ask a CA for when they order.

package issuertest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// NewOrder is what a client asks for when it orders (RFC 8555 §7.4).
type NewOrder struct {
	Identifiers []struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	} `json:"identifiers"`
	// Replaces is the identifier of the certificate that this one replaces (RFC 9773 §5), empty for none.
	Replaces string `json:"replaces"`
	Profile  string `json:"profile"`
}

// Orders keeps what clients ordered. The zero value is ready.
type Orders struct {
	mu  sync.Mutex
	all []NewOrder
}

// All are the orders so far.
func (o *Orders) All() []NewOrder {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.all)
}

// Watch is a PebbleConfig.Wrap.
func (o *Orders) Watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, AtNewOrder) {
			body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
			if err != nil {
				http.Error(w, "read the order: "+err.Error(), http.StatusBadRequest)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			order, err := readNewOrder(body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			o.mu.Lock()
			o.all = append(o.all, order)
			o.mu.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}

// jws is a signed request in the flattened serialization (RFC 7515 §7.2.2).
type jws struct {
	Protected string `json:"protected"`
	Payload   string `json:"payload"`
	Signature string `json:"signature"`
}

// open reads what a request is about. The signature is for the CA to judge.
func (j *jws) open(body []byte, into any) error {
	if err := json.Unmarshal(body, j); err != nil {
		return fmt.Errorf("read signed request: %w", err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(j.Payload)
	if err != nil {
		return fmt.Errorf("read signed request: %w", err)
	}
	if err := json.Unmarshal(payload, into); err != nil {
		return fmt.Errorf("read signed request: %w", err)
	}
	return nil
}

func readNewOrder(body []byte) (order NewOrder, err error) {
	return order, new(jws).open(body, &order)
}
