// This file reads label selectors, in the form that Kubernetes made common: comma-separated requirements that all
// must hold: key=value, key!=value, key in (a,b), key notin (a,b), key, !key.

package manifest

import (
	"errors"
	"slices"
	"strings"
)

// Selector says which servers are meant by their labels. The zero value matches nothing.
type Selector struct{ requirements []requirement }

type requirement struct {
	key string
	// values is nil for a test of presence.
	values []string
	// negated turns the requirement around.
	negated bool
}

// maxSelector bounds a selector, in bytes.
const maxSelector = 1024

// ParseSelector reads a selector such as "role=edge,region in (eu,us)". The error does not repeat the text.
func ParseSelector(text string) (Selector, error) {
	if len(text) > maxSelector {
		return Selector{}, errors.New("the selector has more than 1024 characters")
	}
	var s Selector
	for _, part := range splitOutside(text) {
		r, err := parseRequirement(strings.TrimSpace(part))
		if err != nil {
			return Selector{}, err
		}
		s.requirements = append(s.requirements, r)
	}
	return s, nil
}

// splitOutside splits at commas that do not stand in brackets.
func splitOutside(text string) []string {
	var parts []string
	depth, start := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				parts = append(parts, text[start:i])
				start = i + 1
			}
		}
	}
	return append(parts, text[start:])
}

func parseRequirement(text string) (requirement, error) {
	bad := errors.New("the selector must read like role=edge,region in (eu,us)")
	var r requirement
	if fields := strings.Fields(text); len(fields) >= 2 && (fields[1] == "in" || fields[1] == "notin" || strings.HasPrefix(fields[1], "in(") || strings.HasPrefix(fields[1], "notin(")) {
		r.key = fields[0]
		rest := strings.TrimSpace(strings.TrimPrefix(text, fields[0]))
		rest, r.negated = strings.CutPrefix(rest, "not")
		rest = strings.TrimSpace(strings.TrimPrefix(rest, "in"))
		inner, ok := strings.CutPrefix(rest, "(")
		inner, closed := strings.CutSuffix(inner, ")")
		if !ok || !closed {
			return r, bad
		}
		for value := range strings.SplitSeq(inner, ",") {
			r.values = append(r.values, strings.TrimSpace(value))
		}
	} else if key, value, ok := strings.Cut(text, "!="); ok {
		r = requirement{key: strings.TrimSpace(key), values: []string{strings.TrimSpace(value)}, negated: true}
	} else if key, value, ok := strings.Cut(text, "="); ok {
		value = strings.TrimPrefix(value, "=") // == is the same as =
		r = requirement{key: strings.TrimSpace(key), values: []string{strings.TrimSpace(value)}}
	} else {
		key, negated := strings.CutPrefix(text, "!")
		r = requirement{key: strings.TrimSpace(key), negated: negated}
	}
	if !validLabelText(r.key) {
		return r, bad
	}
	for _, value := range r.values {
		if !validLabelText(value) {
			return r, bad
		}
	}
	return r, nil
}

// Matches says whether a server with these labels is meant.
func (s Selector) Matches(labels map[string]string) bool {
	for _, r := range s.requirements {
		value, present := labels[r.key]
		holds := present && (r.values == nil || slices.Contains(r.values, value))
		if holds == r.negated {
			return false
		}
	}
	return len(s.requirements) > 0
}

// validLabelText says whether s may be the key or the value of a label.
func validLabelText(s string) bool {
	return s != "" && len(s) <= 63 && only(s, alphanumeric+"._-/")
}
