// This file splits a line into words as HAProxy does: quotes, escapes, comments and variables. It also evaluates the
// conditions around lines as far as that is simple.

package haproxyconf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxNesting is HAProxy's own bound of conditions within conditions, and more.
const maxNesting = 32

// word is one word of a line; unset are variables in it that have no value.
type word struct {
	text  string
	unset []string
}

// lexer reads one line. open says that a word has begun, though it may be empty still.
type lexer struct {
	p       *parser
	rest    string
	words   []word
	word    word
	text    strings.Builder
	open    bool
	squoted bool
	dquoted bool
}

func (p *parser) words(line string) ([]word, error) {
	l := &lexer{p: p, rest: line}
	for l.rest != "" {
		c := l.rest[0]
		switch {
		case c == '\n' || c == '\r' || c == 0 || c == '#' && !l.squoted && !l.dquoted:
			l.rest = ""
			continue
		case c == '"' && !l.squoted:
			l.dquoted, l.open = !l.dquoted, true
		case c == '\'' && !l.dquoted:
			l.squoted, l.open = !l.squoted, true
		case c == '\\' && !l.squoted:
			if err := l.escape(); err != nil {
				return nil, err
			}
			continue
		case (c == ' ' || c == '\t' || c == '\v' || c == '\f') && !l.squoted && !l.dquoted:
			l.end()
		case c == '$' && l.dquoted:
			if err := l.variable(); err != nil {
				return nil, err
			}
			continue
		default:
			l.emit(c)
		}
		l.rest = l.rest[1:]
	}
	if l.squoted || l.dquoted {
		return nil, errQuote
	}
	l.end()
	return l.words, nil
}

func (l *lexer) emit(c byte) {
	l.text.WriteByte(c)
	l.open = true
}

func (l *lexer) end() {
	if l.open {
		l.word.text = l.text.String()
		l.words = append(l.words, l.word)
	}
	l.word, l.open = word{}, false
	l.text.Reset()
}

// escape reads a backslash and what follows. Before anything but these it stands for itself.
func (l *lexer) escape() error {
	if len(l.rest) < 2 {
		l.emit('\\')
		l.rest = ""
		return nil
	}
	used := 2
	switch c := l.rest[1]; c {
	case ' ', '\\', '#', '"', '\'', '$':
		l.emit(c)
	case 't':
		l.emit('\t')
	case 'r':
		l.emit('\r')
	case 'n':
		l.emit('\n')
	case 'x':
		if len(l.rest) < 4 {
			return errors.New(`\x is not followed by two hex digits`)
		}
		n, err := strconv.ParseUint(l.rest[2:4], 16, 8)
		if err != nil {
			return errors.New(`\x is not followed by two hex digits`)
		}
		l.emit(byte(n))
		used = 4
	default:
		l.emit('\\')
		used = 1
	}
	l.rest = l.rest[used:]
	return nil
}

// variable reads "$NAME", "${NAME}", "${NAME-default}" or "${NAME[*]}", which is split at spaces.
func (l *lexer) variable() error {
	rest, braced := strings.CutPrefix(l.rest[1:], "{")
	n := 0
	for n < len(rest) && isNameByte(rest[n]) {
		n++
	}
	if n == 0 {
		return errors.New("a variable without a name")
	}
	name := rest[:n]
	rest = rest[n:]
	var fallback string
	var split, hasFallback bool
	if braced {
		rest, split = strings.CutPrefix(rest, "[*]")
		if fallback, hasFallback = strings.CutPrefix(rest, "-"); hasFallback {
			fallback, _, _ = strings.Cut(fallback, "}")
			rest = rest[1+len(fallback):]
		}
		var closed bool
		if rest, closed = strings.CutPrefix(rest, "}"); !closed {
			return fmt.Errorf("the variable %s is not closed by a brace", name)
		}
	}
	l.rest = rest
	value, set := l.p.lookup(name)
	switch {
	case !set && hasFallback:
		value = fallback
	case !set:
		l.word.unset = append(l.word.unset, name)
	}
	l.open = true
	if !split {
		l.text.WriteString(value)
		return nil
	}
	for i, part := range strings.Fields(value) {
		if i > 0 {
			l.end()
			l.open = true
		}
		l.text.WriteString(part)
	}
	return nil
}

func isNameByte(c byte) bool {
	return c == '_' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// lookup returns a variable's value; those with a leading dot are HAProxy's own (version 3.1 and later).
func (p *parser) lookup(name string) (string, bool) {
	switch name {
	case ".FILE":
		return p.file, true
	case ".LINE":
		return strconv.Itoa(p.line), true
	case ".SECTION":
		return p.section.kind, true
	}
	value, ok := p.env[name]
	return value, ok
}

// truth is what is known of a condition.
type truth int

const (
	no truth = iota
	perhaps
	yes
)

// condition is one .if: the branch that is being read, and whether one before was taken.
type condition struct{ now, taken truth }

// active says that a line may count: no branch around it is known not to be taken.
func (p *parser) active() bool {
	for _, c := range p.conditions {
		if c.now == no {
			return false
		}
	}
	return true
}

// conditional reads the lines that begin with a dot, and answers whether words was one.
func (p *parser) conditional(words []word) bool {
	n := len(p.conditions)
	keyword := words[0].text
	switch keyword {
	case ".if":
		if n >= maxNesting {
			p.fault("more than %d conditions within each other", maxNesting)
			return true
		}
		t := p.evaluate(words[1:])
		p.conditions = append(p.conditions, condition{t, t})
	case ".elif", ".else", ".endif":
		if n == 0 {
			p.fault("%s without .if", keyword)
			return true
		}
		c := &p.conditions[n-1]
		t := yes
		switch keyword {
		case ".endif":
			p.conditions = p.conditions[:n-1]
			return true
		case ".elif":
			t = p.evaluate(words[1:])
		}
		c.now = min(t, yes-c.taken)
		c.taken = max(c.taken, t)
	default:
		// The others print a message.
		return strings.HasPrefix(keyword, ".") && len(keyword) > 1
	}
	return true
}

// evaluate knows numbers, defined, streq, strneq and strstr, and "!" before them.
func (p *parser) evaluate(words []word) truth {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = w.text
	}
	expression := strings.TrimSpace(strings.Join(texts, " "))
	if expression == "" {
		return no
	}
	if strings.Contains(expression, "&&") || strings.Contains(expression, "||") {
		return perhaps
	}
	inner, negated := strings.CutPrefix(expression, "!")
	t := p.predicate(strings.TrimSpace(inner))
	if negated {
		return yes - t
	}
	return t
}

func (p *parser) predicate(s string) truth {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return truthOf(n != 0)
	}
	name, rest, ok := strings.Cut(s, "(")
	inner, closed := strings.CutSuffix(rest, ")")
	if !ok || !closed {
		return perhaps
	}
	left, right, two := strings.Cut(inner, ",")
	left, right = strings.TrimSpace(left), strings.TrimSpace(right)
	switch {
	case name == "defined":
		_, set := p.lookup(left)
		return truthOf(set)
	case name == "streq" && two:
		return truthOf(left == right)
	case name == "strneq" && two:
		return truthOf(left != right)
	case name == "strstr" && two:
		return truthOf(strings.Contains(left, right))
	}
	return perhaps
}

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}
