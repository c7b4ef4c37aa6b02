// This file says what a person does about an error of each class.

package issuer

// NextStep is the sentence that says what helps after an error of the class; empty for an unknown class.
func NextStep(c Class) string { return nextSteps[c] }

var nextSteps = map[Class]string{
	Retryable:        "Nothing to do yet: the hub tries again by itself, and goes to the fallback issuer where the certificate names one.",
	RateLimited:      "Nothing to do: the hub goes on when the CA's limit allows it. Order less often, or name a fallback issuer.",
	ValidationFailed: "The CA could not see what proves control of the name: run the preflight of this certificate, mend what it finds, then renew.",
	DNSProvider:      "The DNS provider refused or failed: test the credential, and check that it may change the zone.",
	Account:          "The account at the CA cannot be used: look at the issuer, mend its account, e-mail address or binding, then renew.",
	Permanent:        "This order will never succeed as it is: change the certificate or the issuer, then renew.",
	Local:            "Something on the hub's machine is at fault: look at the hub's log and at its disk, mend it, then renew.",
}
