// This file asks what time it is at the CA.

package acmesh

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Time is the CA's clock, as the answer of its directory shows it (RFC 9110 §6.6.1), to the second; zero where it does
// not. Nothing is ordered and no account is needed.
func (i *Issuer) Time(ctx context.Context) (time.Time, error) {
	client, done, err := i.httpClient()
	if err != nil {
		return time.Time{}, err
	}
	defer done()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, i.cfg.Directory, http.NoBody)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the CA's directory: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the CA's directory: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return time.Time{}, fmt.Errorf("ask for the CA's directory: status %d", response.StatusCode)
	}
	there, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return time.Time{}, nil // a CA need not tell the time
	}
	return there, nil
}
