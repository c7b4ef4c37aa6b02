// This file says which variables may reach the environment of a program that a driver runs, and with which values.

package issuer

import (
	"errors"
	"regexp"
	"strings"
)

// maxValue bounds the value of a variable, in bytes.
const maxValue = 8192

var (
	variable = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)
	// reserved variables steer acme.sh, the shell or the loader.
	reserved = regexp.MustCompile(`^(PATH|HOME|PWD|IFS|ENV|SHELL|TMPDIR|TZ|LANG|HTTP_HEADER|HTTPS_INSECURE|DEBUG|NO_PROXY|BASH_ENV|SHELLOPTS|BASHOPTS|PS[0-9])$|^(LD_|LC_|CA_|LE_|CERTFERRY_|Le_|ACME_|ACCOUNT_|LOG_|CERT_|DOMAIN_|AUTO_|DEFAULT_|BASH_|_)|_(HOOK|PROXY|proxy)$|^(https?|no|all)_proxy$`)
	// loads are variables that name code, settings or trusted roots for the programs that hooks run: curl, openssl, python,
	// perl, ruby, java, go, the C library and mount(8). Hooks that say nothing of what they take would pass them on.
	loads = regexp.MustCompile(`^(OPENSSL_|CURL_|SSL_|SSLKEYLOGFILE$|PYTHON|PERL|NODE_|RUBY|GEM_|JAVA_|JDK_|_JAVA_|GODEBUG$|GIT_|XDG_|WGETRC$|SYSTEM_WGETRC$|NETRC$|GCONV_PATH$|GLIBC_|MALLOC_|LOCPATH$|NLSPATH$|LIBMOUNT_|HOSTALIASES$|LOCALDOMAIN$|RES_OPTIONS$|RESOLV_|AWK|GREP_|POSIXLY_CORRECT$)`)
)

// IsVariable says whether name has the form of a variable.
func IsVariable(name string) bool { return variable.MatchString(name) }

// CheckVariable says why a variable cannot be given to a hook, nil where it can. The error repeats neither.
func CheckVariable(name, value string) error {
	switch {
	case !variable.MatchString(name):
		return errors.New("the name of a variable must be letters, digits and underscores")
	case reserved.MatchString(name), loads.MatchString(name):
		return errors.New("a variable of this name is not allowed: it would steer more than the hook")
	case len(value) > maxValue:
		return errors.New("the value is longer than 8192 bytes")
	case strings.ContainsFunc(value, unsafe):
		return errors.New("the value holds a quote, $, `, \\, or a control character, which acme.sh cannot take")
	}
	return nil
}

// unsafe says which characters acme.sh would read as shell text.
func unsafe(r rune) bool {
	return r < ' ' || r == 0x7f || strings.ContainsRune("'\"`$\\", r)
}
