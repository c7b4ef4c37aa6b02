// This file cuts a configuration file into directives and words, as ap_cfg_getline and ap_getword_conf do.

package apacheconf

import (
	"bytes"
	"strings"
)

// line is a logical line: physical lines that end with a backslash are joined.
type line struct {
	text   string
	file   string
	number int
}

// text is lines with a place in them.
type text struct {
	lines []line
	next  int
}

// lines cuts data into logical lines without the empty ones and the comments. A comment is continued as well.
func lines(file string, data []byte) []line {
	var all []line
	var joined strings.Builder
	number, first := 0, 0
	for physical := range bytes.Lines(data) {
		number++
		if first == 0 {
			first = number
		}
		physical = bytes.TrimSuffix(bytes.TrimSuffix(physical, []byte("\n")), []byte("\r"))
		more, continued := bytes.CutSuffix(physical, []byte(`\`))
		joined.Write(more)
		if continued {
			continue
		}
		all = appendLine(all, line{text: joined.String(), file: file, number: first})
		joined.Reset()
		first = 0
	}
	return appendLine(all, line{text: joined.String(), file: file, number: first})
}

func appendLine(all []line, l line) []line {
	l.text = strings.TrimFunc(l.text, isSpace)
	if l.text == "" || l.text[0] == '#' {
		return all
	}
	return append(all, l)
}

// isSpace is that of C.
func isSpace(r rune) bool { return r == ' ' || '\t' <= r && r <= '\r' }

// cutWord takes the next word from s: up to a blank, or what stands between quotes. It is empty at the end.
func cutWord(s string) (word, rest string) {
	s = strings.TrimLeftFunc(s, isSpace)
	if s == "" {
		return "", ""
	}
	quote := s[0]
	if quote != '"' && quote != '\'' {
		end := strings.IndexFunc(s, isSpace)
		if end < 0 {
			end = len(s)
		}
		return unescape(s[:end], 0), strings.TrimLeftFunc(s[end:], isSpace)
	}
	end := 1
	for end < len(s) && s[end] != quote {
		if s[end] == '\\' && end+1 < len(s) && (s[end+1] == quote || s[end+1] == '\\') {
			end++
		}
		end++
	}
	word = unescape(s[1:min(end, len(s))], quote)
	return word, strings.TrimLeftFunc(s[min(end+1, len(s)):], isSpace)
}

// unescape removes the backslash before a backslash and before the quote that the word stands in.
func unescape(s string, quote byte) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (s[i+1] == '\\' || quote != 0 && s[i+1] == quote) {
			i++
		}
		out = append(out, s[i])
	}
	return string(out)
}

// inside is what a section's opening tag says after its name: everything before the last ">".
func inside(rest string) string {
	if end := strings.LastIndexByte(rest, '>'); end >= 0 {
		return rest[:end]
	}
	return rest
}
