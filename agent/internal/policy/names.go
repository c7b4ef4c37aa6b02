package policy

import (
	"fmt"
	"regexp"
)

var (
	objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$`)
	dnsName    = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

func validName(s string) error {
	if !objectName.MatchString(s) {
		return fmt.Errorf("%q is not a name", s)
	}
	return nil
}

func validDNSName(s string) error {
	if !dnsName.MatchString(s) || len(s) > 253 {
		return fmt.Errorf("%q is not a DNS name", s)
	}
	return nil
}
