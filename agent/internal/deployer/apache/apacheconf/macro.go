// This file is mod_macro: text with parameters, put in line by line before it is read.

package apacheconf

import (
	"fmt"
	"slices"
	"strings"
)

type macro struct {
	parameters []string
	body       []line
}

// defineMacro takes the lines of a section <Macro name parameters …>.
func (r *reader) defineMacro(t *text, l line, arg string) {
	words := r.words(arg)
	start := t.next
	depth := 1
	for ; t.next < len(t.lines); t.next++ {
		first, _ := cutWord(t.lines[t.next].text)
		switch first = strings.ToLower(strings.TrimSuffix(first, ">")); first {
		case "<macro":
			depth++
		case "</macro":
			depth--
		}
		if depth == 0 {
			break
		}
	}
	body := t.lines[start:t.next]
	switch {
	case depth > 0:
		r.fault(l, "section <macro> is not closed in its file")
		return
	case len(words) == 0:
		r.fault(l, "a macro needs a name")
	default:
		parameters := slices.DeleteFunc(words[1:], func(p string) bool { return p == "" })
		r.macros[strings.ToLower(words[0])] = &macro{parameters: parameters, body: body}
	}
	t.next++
}

// useMacro reads the lines of a macro with its parameters put in. A directive in there stands at the line of the
// macro's definition.
func (r *reader) useMacro(l line, args []string) {
	name, values := strings.ToLower(args[0]), args[1:]
	entry := "macro " + name
	m, known := r.macros[name]
	switch {
	case !known:
		r.fault(l, "macro %q is not defined", name)
		return
	case len(values) != len(m.parameters):
		r.fault(l, "macro %q has %d parameters, but %d values are given", name, len(m.parameters), len(values))
		return
	case slices.Contains(r.stack, entry):
		r.fault(l, "macro %q uses itself", name)
		return
	}
	replacer := m.replacer(values)
	body := make([]line, 0, len(m.body))
	size := 0
	for _, b := range m.body {
		var out bounded
		if _, err := replacer.WriteString(&out, b.text); err != nil {
			r.fault(l, "use macro %q: %v", name, err)
			return
		}
		b.text = out.String()
		size += len(b.text)
		body = append(body, b)
	}
	if !r.spend(l, size) || !r.enter(l) {
		return
	}
	defer r.leave()
	r.stack = append(r.stack, entry)
	defer func() { r.stack = r.stack[:len(r.stack)-1] }()
	r.read(&text{lines: body}, "")
}

// replacer puts the values of the parameters into a line: the leftmost first, and of several there the longest. What
// was put in is not looked at again. A parameter that begins with "@" comes in quotes.
func (m *macro) replacer(values []string) *strings.Replacer {
	order := make([]int, len(m.parameters))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(m.parameters[b]) - len(m.parameters[a]) })
	var pairs []string
	for _, i := range order {
		value := values[i]
		if strings.HasPrefix(m.parameters[i], "@") {
			value = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
		}
		pairs = append(pairs, m.parameters[i], value)
	}
	return strings.NewReplacer(pairs...)
}

// bounded is a line that becomes no longer than maxLine.
type bounded struct{ strings.Builder }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) { return b.WriteString(string(p)) }

// WriteString implements io.StringWriter.
func (b *bounded) WriteString(s string) (int, error) {
	if b.Len()+len(s) > maxLine {
		return 0, fmt.Errorf("a line becomes longer than %d bytes", maxLine)
	}
	return b.Builder.WriteString(s)
}
