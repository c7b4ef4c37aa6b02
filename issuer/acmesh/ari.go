// This file asks a CA when it wants a certificate renewed (RFC 9773). No account is needed, and nothing is signed.

package acmesh

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/issuer"
)

// maxAnswer bounds what is read of a CA's answer, in bytes.
const maxAnswer = 64 << 10

// RenewalInfo asks for the window of leaf, which parent signed.
func (i *Issuer) RenewalInfo(ctx context.Context, leaf, parent *x509.Certificate) (issuer.RenewalInfo, error) {
	id, err := certID(leaf, parent)
	if err != nil {
		return issuer.RenewalInfo{}, err
	}
	client, done, err := i.httpClient()
	if err != nil {
		return issuer.RenewalInfo{}, err
	}
	defer done()
	var directory struct {
		RenewalInfo string `json:"renewalInfo"`
	}
	if _, err := getJSON(ctx, client, i.cfg.Directory, &directory); err != nil {
		return issuer.RenewalInfo{}, fmt.Errorf("read the CA's directory: %w", err)
	}
	if directory.RenewalInfo == "" {
		return issuer.RenewalInfo{}, issuer.ErrUnsupported
	}
	var answer struct {
		SuggestedWindow struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
		ExplanationURL string `json:"explanationURL"`
	}
	header, err := getJSON(ctx, client, strings.TrimSuffix(directory.RenewalInfo, "/")+"/"+id, &answer)
	if err != nil {
		return issuer.RenewalInfo{}, fmt.Errorf("ask the CA when to renew: %w", err)
	}
	info := issuer.RenewalInfo{
		Start: answer.SuggestedWindow.Start.UTC(), End: answer.SuggestedWindow.End.UTC(), RetryAfter: retryAfter(header, i.cfg.Now()),
	}
	// A window that ends before it begins is to be treated as none at all (RFC 9773 §4.2).
	if !info.Start.Before(info.End) {
		return issuer.RenewalInfo{}, errors.New("ask the CA when to renew: its window ends before it begins")
	}
	if u, err := url.Parse(answer.ExplanationURL); err == nil && (u.Scheme == "https" || u.Scheme == "http") && len(answer.ExplanationURL) < 500 {
		info.ExplanationURL = oneLine(answer.ExplanationURL)
	}
	return info, nil
}

// certID is base64url(AKI key identifier) "." base64url(serial number in DER) (RFC 9773 §4.1).
func certID(leaf, parent *x509.Certificate) (string, error) {
	key := leaf.AuthorityKeyId
	if len(key) == 0 && parent != nil {
		key = parent.SubjectKeyId
	}
	if len(key) == 0 || leaf.SerialNumber == nil {
		return "", issuer.ErrUnsupported
	}
	der, err := asn1.Marshal(leaf.SerialNumber)
	if err != nil {
		return "", fmt.Errorf("name the certificate: %w", err)
	}
	var serial asn1.RawValue
	if _, err := asn1.Unmarshal(der, &serial); err != nil {
		return "", fmt.Errorf("name the certificate: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(key) + "." + base64.RawURLEncoding.EncodeToString(serial.Bytes), nil
}

func getJSON(ctx context.Context, client *http.Client, address string, into any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "certferry")
	answer, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the CA answers with status %d", answer.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(into); err != nil {
		return nil, errors.New("the CA's answer cannot be read")
	}
	return answer.Header, nil
}

// retryAfter reads the header of RFC 9110 §10.2.3, 0 where it is not there or makes no sense.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := header.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return min(time.Duration(min(n, int(longestWait/time.Second)))*time.Second, longestWait)
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return min(at.Sub(now), longestWait)
	}
	return 0
}
