package apiv1

// RevokeRequest is the body of POST /certificates/{id}/revoke.
type RevokeRequest struct {
	// Reason is one of RFC 5280 §5.3.1. After keyCompromise the next certificate has a new key, whatever the certificate
	// says.
	Reason string `json:"reason" enum:"unspecified,keyCompromise,affiliationChanged,superseded,cessationOfOperation,privilegeWithdrawn"`
	// Serial says which issue is meant, so that nobody revokes another one than the one that was looked at.
	Serial string `json:"serial" minLength:"1" maxLength:"64"`
	// NoRenew pauses the renewal: no other certificate takes the place of this one.
	NoRenew bool `json:"no_renew,omitempty"`
}
