package issuer_test

import (
	"strings"
	"testing"

	"github.com/certferry/certferry/issuer"
)

func TestCheckVariable(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"CF_Token": "abc-DEF_123", "AWS_ACCESS_KEY_ID": "AKIA", "NSUPDATE_KEY": "/etc/key", "x": strings.Repeat("v", 8192), "EAB_KID": "ü",
	} {
		if err := issuer.CheckVariable(name, value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "1A", "A-B", "A B", strings.Repeat("A", 65), "PATH", "HOME", "ENV", "PS4", "LD_PRELOAD", "BASH_FUNC_x", "LE_WORKING_DIR", "CERTFERRY_RUN",
		"CA_BUNDLE", "HTTPS_INSECURE", "Le_Domain", "DEPLOY_HOOK", "https_proxy", "HTTPS_PROXY", "_x",
		"OPENSSL_CONF", "OPENSSL_MODULES", "CURL_HOME", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSLKEYLOGFILE", "PYTHONPATH", "PERL5LIB", "XDG_CONFIG_HOME", "GCONV_PATH",
		"HOSTALIASES", "PERL5OPT", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "RUBYOPT", "JAVA_TOOL_OPTIONS", "GODEBUG", "GIT_SSH_COMMAND", "GLIBC_TUNABLES", "MALLOC_CHECK_",
		"LOCPATH", "NLSPATH", "LIBMOUNT_FSTAB", "SHELLOPTS", "BASHOPTS", "AWKPATH", "GREP_OPTIONS", "RESOLV_MULTI", "NETRC",
	} {
		if err := issuer.CheckVariable(name, "plain"); err == nil || name != "" && len(name) > 2 && strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, value := range []string{"a'b", "a\"b", "a`b", "a$b", `a\b`, "a\nb", "a\x00b", "a\x7fb", strings.Repeat("v", 8193)} {
		if err := issuer.CheckVariable("CF_Token", value); err == nil || strings.Contains(err.Error(), value) {
			t.Errorf("%q: %v", value, err)
		}
	}
}
