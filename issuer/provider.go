// This file is what a DNS provider needs, as a form shows it.

package issuer

import "slices"

// DNSHook is a DNS provider that a hook speaks to.
type DNSHook struct {
	// Hook is the hook's name, such as dns_cf.
	Hook string
	// Title is the provider's name, Hint a sentence about it or empty.
	Title string
	Hint  string
	// Site and Docs are addresses of pages, or empty.
	Site string
	Docs string
	// Options are the variables that it takes, Alternative those that it takes in their place; both are empty for the few
	// hooks that say nothing.
	Options     []DNSOption
	Alternative []DNSOption
}

// DNSOption is a variable of a hook.
type DNSOption struct {
	Name string
	// Description is for people, Default the value that the hook takes where none is given.
	Description string
	Default     string
	Optional    bool
	// Secret says that the value must not be shown while it is typed.
	Secret bool
}

// Variables are the names of all variables that the provider takes; none where it says nothing.
func (p *DNSHook) Variables() []string {
	var names []string
	for _, o := range slices.Concat(p.Options, p.Alternative) {
		if !slices.Contains(names, o.Name) {
			names = append(names, o.Name)
		}
	}
	return names
}
