// This file knows the hooks of acme.sh that read their variables as shell text. They were found by looking for eval in
// all hooks of the pinned commit; the others put values into requests only.

package dnshook

import (
	"errors"
	"regexp"
)

// commands are hooks that run a variable as a command.
var commands = map[string]string{"dns_nsd": "Nsd_Command"}

// Command is the variable that a hook runs as a command, empty where it runs none.
func Command(hook string) string { return commands[hook] }

// lexiconProvider is what dns_lexicon makes variable names of, by eval.
var lexiconProvider = regexp.MustCompile(`^[a-z0-9]{1,40}$`)

// CheckValue refuses a value that a hook would read as shell text.
func CheckValue(hook, variable, value string) error {
	if hook == "dns_lexicon" && variable == "PROVIDER" && !lexiconProvider.MatchString(value) {
		return errors.New("PROVIDER must be the name of a provider of Lexicon: lower-case letters and digits")
	}
	return nil
}
