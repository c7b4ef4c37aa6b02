// This file signs and checks access tokens: JWT (RFC 7519), HS256 only, with every claim required.

package auth

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/certferry/certferry/hub"
)

const (
	issuerClaim   = "certferry"
	audienceClaim = "certferry-api"
	leeway        = 30 * time.Second
)

type claims struct {
	jwt.RegisteredClaims

	Session string `json:"sid"`
}

// signAccess makes a token that lives an hour, and never longer than its session.
func (a *Auth) signAccess(user string, s hub.Session) (token string, expires time.Time, err error) {
	now := a.cfg.Now().UTC()
	expires = now.Add(accessLife)
	if expires.After(s.ExpiresAt) {
		expires = s.ExpiresAt.UTC()
	}
	expires = expires.Truncate(time.Second)
	token, err = jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuerClaim, Audience: jwt.ClaimStrings{audienceClaim}, Subject: user,
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
		},
		Session: s.ID,
	}).SignedString(a.cfg.SigningKey)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign access token: %w", err)
	}
	return token, expires, nil
}

func (a *Auth) verifyAccess(token string) (user, session string, issued time.Time, err error) {
	var c claims
	_, err = jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return a.cfg.SigningKey, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithIssuer(issuerClaim), jwt.WithAudience(audienceClaim), jwt.WithLeeway(leeway), jwt.WithTimeFunc(a.cfg.Now))
	if err != nil {
		return "", "", time.Time{}, fmt.Errorf("check access token: %w", err)
	}
	if c.Subject == "" || c.Session == "" || c.IssuedAt == nil {
		return "", "", time.Time{}, errors.New("check access token: a claim is missing")
	}
	return c.Subject, c.Session, c.IssuedAt.Time, nil
}
