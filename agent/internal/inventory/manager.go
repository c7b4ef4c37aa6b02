// This file recognises who else looks after a certificate: two that renew the same file fight each other.

package inventory

import (
	"strings"
)

// managers are folders by which a program that renews certificates is known.
var managers = []struct{ part, name string }{
	{"/etc/letsencrypt/", "certbot"},
	{"/.acme.sh/", "acme.sh"},
	{"/acme.sh/", "acme.sh"},
	{"/.lego/", "lego"},
	{"/var/lib/dehydrated/", "dehydrated"},
	{"/etc/dehydrated/", "dehydrated"},
	{"/caddy/certificates/", "caddy"},
	{"/var/lib/acme/live/", "acmetool"},
	{"/www/server/panel/vhost/cert/", "baota"},
	{"/opt/1panel/", "1panel"},
	{"/etc/pve/", "proxmox"},
	{"/var/cpanel/ssl/", "cpanel"},
	{"/var/lib/docker/", "docker"},
}

// manager is who looks after the file, empty where nobody is known.
func manager(r *record) string {
	if r.Target != "" {
		return "certferry"
	}
	for _, m := range managers {
		if strings.Contains(r.Path, m.part) {
			return m.name
		}
	}
	return ""
}
