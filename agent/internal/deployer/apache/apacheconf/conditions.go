// This file says which conditional sections hold.

package apacheconf

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// holds says whether the section is followed. Sections that are not conditions are, and so are the conditions
// that httpd decides anew with each request.
func (r *reader) holds(l line, section, arg string) bool {
	switch section {
	case "ifdefine":
		return r.condition(arg, func(name string) bool { return r.defines[name] })
	case "ifmodule":
		return r.condition(arg, func(name string) bool { return r.modules[name] })
	case "iffile":
		return r.condition(arg, func(path string) bool {
			matches, err := r.files.Glob(quote.Replace(r.absolute(path)))
			return err == nil && len(matches) > 0
		})
	case "ifversion":
		holds, err := r.versionHolds(arg)
		if err != nil {
			r.note(l, "compare the version: %v; what stands in there is taken to count", err)
		}
		return holds
	}
	return true
}

// condition asks is for what arg names, with or without "!" before it.
func (r *reader) condition(arg string, is func(string) bool) bool {
	arg = strings.TrimLeftFunc(arg, isSpace)
	wanted, negated := strings.CutPrefix(arg, "!")
	word, _ := cutWord(wanted)
	return is(word) != negated
}

// versionHolds compares as mod_version does: [!]operator version, "=" where the operator is left out.
func (r *reader) versionHolds(arg string) (bool, error) {
	words := r.words(arg)
	if len(words) == 1 {
		words = []string{"=", words[0]}
	}
	if len(words) != 2 {
		return true, fmt.Errorf("%q is not an operator and a version", strings.TrimSpace(arg))
	}
	if r.version == "" {
		return true, nil
	}
	operator, negated := strings.CutPrefix(words[0], "!")
	pattern, isPattern := strings.CutPrefix(words[1], "/")
	if operator == "~" || isPattern && strings.HasPrefix(operator, "=") {
		re, err := regexp.Compile(strings.TrimSuffix(pattern, "/"))
		if err != nil {
			return true, err
		}
		return re.MatchString(r.version) != negated, nil
	}
	compared, err := compareVersions(r.version, words[1])
	if err != nil {
		return true, err
	}
	holds := map[string]bool{
		"=": compared == 0, "==": compared == 0, ">": compared > 0, ">=": compared >= 0, "<": compared < 0, "<=": compared <= 0,
	}
	result, known := holds[operator]
	if !known {
		return true, fmt.Errorf("operator %q is not known", operator)
	}
	return result != negated, nil
}

// compareVersions compares major.minor.patch; what is left out is 0.
func compareVersions(a, b string) (int, error) {
	x, err := parseVersion(a)
	if err != nil {
		return 0, err
	}
	y, err := parseVersion(b)
	if err != nil {
		return 0, err
	}
	return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]), cmp.Compare(x[2], y[2])), nil
}

func parseVersion(s string) (version [3]uint64, err error) {
	parts := strings.Split(s, ".")
	if len(parts) > len(version) {
		return version, fmt.Errorf("%q is not a version", s)
	}
	for i, part := range parts {
		if version[i], err = strconv.ParseUint(part, 10, 32); err != nil {
			return version, fmt.Errorf("%q is not a version", s)
		}
	}
	return version, nil
}
