package issuer

// Snippet is what a web server is told so that it answers challenges of type http-01 by itself (RFC 8555 §8.3): the
// token, a dot and the thumbprint of the account, which is no secret. It never has to be changed while the account stays.
type Snippet struct {
	// Server is nginx, apache or haproxy; Where is the part of its configuration that Text goes into.
	Server, Where, Text string
}

// StatelessSnippets are those for an account.
func StatelessSnippets(thumbprint string) []Snippet {
	return []Snippet{
		{
			"nginx", "each server block that listens on port 80",
			`location ~ ^/\.well-known/acme-challenge/([-_a-zA-Z0-9]+)$ {
    default_type text/plain;
    return 200 "$1.` + thumbprint + `";
}
`,
		},
		{
			"apache", "each virtual host of port 80; it needs mod_rewrite, and Apache 2.4.13 or newer",
			`RewriteEngine on
<LocationMatch "^/\.well-known/acme-challenge/(?<token>[-_a-zA-Z0-9]+)$">
    RewriteRule ^ - [END,R=200]
    ErrorDocument 200 "%{env:MATCH_TOKEN}.` + thumbprint + `"
</LocationMatch>
`,
		},
		{
			"haproxy", "the frontend of port 80, before any redirect; it needs HAProxy 2.2 or newer",
			`http-request return status 200 content-type text/plain lf-string "%[path,field(-1,/)].` + thumbprint + `" if { path_reg ^/\.well-known/acme-challenge/[-_a-zA-Z0-9]+$ }
`,
		},
	}
}
