// This file splits a configuration into words as nginx does (ngx_conf_read_token), and skips Lua code in it.

package nginxconf

import (
	"bytes"
	"strings"
)

// endOfFile is the end of a statement that is none.
const endOfFile = 0

// statement is a directive up to its end: a semicolon, an opening or a closing brace, or the end of the file. The
// first two have at least one word, the others none.
type statement struct {
	words  []string
	line   int
	end    byte
	errors []syntaxError
}

type syntaxError struct {
	line    int
	message string
}

func (s *statement) fail(line int, message string) {
	if len(s.errors) < maxBroken {
		s.errors = append(s.errors, syntaxError{line, message})
	}
}

type lexer struct {
	data []byte
	pos  int
	line int
}

func newLexer(data []byte) *lexer {
	return &lexer{data: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), line: 1}
}

// next reads the next statement.
func (l *lexer) next() statement {
	var s statement
	for l.skipSpace() {
		switch c := l.data[l.pos]; c {
		case ';', '{':
			l.pos++
			if len(s.words) == 0 {
				s.fail(l.line, "unexpected "+string(c))
				if c == '{' { // The block's end must find its beginning.
					s.words, s.line = []string{""}, l.line
				} else {
					continue
				}
			}
			s.end = c
			return s
		case '}':
			l.pos++
			if len(s.words) > 0 {
				s.fail(s.line, "the directive does not end with a semicolon")
			}
			s.end, s.words = c, nil
			return s
		default:
			if len(s.words) == 0 {
				s.line = l.line
			}
			l.word(&s)
		}
	}
	if len(s.words) > 0 {
		s.fail(s.line, "the file ends within a directive")
	}
	s.end, s.words = endOfFile, nil
	return s
}

// skipSpace skips white space and comments, and answers false at the end of the file.
func (l *lexer) skipSpace() bool {
	comment := false
	for ; l.pos < len(l.data); l.pos++ {
		switch c := l.data[l.pos]; {
		case c == '\n':
			l.line++
			comment = false
		case comment || isSpace(c):
		case c == '#':
			comment = true
		default:
			return true
		}
	}
	return false
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// word reads one word, quoted or not.
func (l *lexer) word(s *statement) {
	line := l.line
	var raw []byte
	if quote := l.data[l.pos]; quote == '"' || quote == '\'' {
		l.pos++
		raw = l.quoted(s, quote)
	} else {
		raw = l.bare()
	}
	if len(raw) > maxWord {
		s.fail(line, "a word is too long; perhaps a quotation mark is missing")
		raw = raw[:maxWord]
	}
	switch {
	case len(s.words) < maxWords:
		s.words = append(s.words, unescape(raw))
	case len(s.words) == maxWords:
		s.fail(line, "the directive has too many words")
	}
}

// quoted reads up to the closing quotation mark, which must end the word.
func (l *lexer) quoted(s *statement, quote byte) []byte {
	start, line := l.pos, l.line
	for ; l.pos < len(l.data); l.pos++ {
		switch l.data[l.pos] {
		case '\\':
			l.pos++
			if l.pos < len(l.data) && l.data[l.pos] == '\n' {
				l.line++
			}
		case '\n':
			l.line++
		case quote:
			raw := l.data[start:l.pos]
			l.pos++
			if l.pos < len(l.data) && !isSpace(l.data[l.pos]) && !strings.ContainsRune(";{)", rune(l.data[l.pos])) {
				s.fail(l.line, "something follows a closing quotation mark without a space")
			}
			return raw
		}
	}
	l.pos = len(l.data)
	s.fail(line, "a quotation mark is not closed")
	return l.data[min(start, l.pos):]
}

// bare reads a word without quotation marks. Braces right after a dollar sign belong to a variable's name.
func (l *lexer) bare() []byte {
	start := l.pos
	variable := false
	for ; l.pos < len(l.data); l.pos++ {
		c := l.data[l.pos]
		if c == '{' && variable {
			continue
		}
		variable = c == '$'
		if c == '\\' {
			l.pos++
			if l.pos < len(l.data) && l.data[l.pos] == '\n' {
				l.line++
			}
		} else if l.pos > start && (isSpace(c) || c == ';' || c == '{') {
			break
		}
	}
	l.pos = min(l.pos, len(l.data))
	return l.data[start:l.pos]
}

// unescape takes out the backslashes that nginx takes out; it leaves others where they are.
func unescape(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] == '\\' && i+1 < len(raw) {
			if j := strings.IndexByte(`"'\trn`, raw[i+1]); j >= 0 {
				i++
				b.WriteByte("\"'\\\t\r\n"[j])
				continue
			}
		}
		b.WriteByte(raw[i])
	}
	return b.String()
}

// skipLua skips Lua code up to the brace that closes its block, false where there is none. Strings, comments and long brackets may hold braces.
func (l *lexer) skipLua() (closed bool) {
	for open := 1; l.pos < len(l.data); {
		c := l.data[l.pos]
		l.pos++
		switch c {
		case '\n':
			l.line++
		case '{':
			open++
		case '}':
			if open--; open == 0 {
				return true
			}
		case '"', '\'':
			l.skipLuaString(c)
		case '[':
			l.skipLongBracket()
		case '-':
			if l.pos < len(l.data) && l.data[l.pos] == '-' {
				l.pos++
				if l.pos < len(l.data) && l.data[l.pos] == '[' {
					l.pos++
					if l.skipLongBracket() {
						continue
					}
				}
				l.skipTo([]byte("\n"))
			}
		}
	}
	return false
}

func (l *lexer) skipLuaString(quote byte) {
	for ; l.pos < len(l.data); l.pos++ {
		switch l.data[l.pos] {
		case '\\':
			l.pos++
			if l.pos < len(l.data) && l.data[l.pos] == '\n' {
				l.line++
			}
		case '\n': // Not closed: Lua refuses it.
			return
		case quote:
			l.pos++
			return
		}
	}
	l.pos = len(l.data)
}

// skipLongBracket skips [[ … ]] or [=[ … ]=], of which the first "[" was read.
func (l *lexer) skipLongBracket() bool {
	i := l.pos
	for i < len(l.data) && l.data[i] == '=' {
		i++
	}
	if i == len(l.data) || l.data[i] != '[' {
		return false
	}
	closing := "]" + strings.Repeat("=", i-l.pos) + "]"
	l.pos = i + 1
	l.skipTo([]byte(closing))
	l.pos = min(l.pos+len(closing), len(l.data))
	return true
}

// skipTo moves to the next mark, or to the end.
func (l *lexer) skipTo(mark []byte) {
	n := bytes.Index(l.data[l.pos:], mark)
	if n < 0 {
		n = len(l.data) - l.pos
	}
	l.line += bytes.Count(l.data[l.pos:l.pos+n], []byte("\n"))
	l.pos += n
}
