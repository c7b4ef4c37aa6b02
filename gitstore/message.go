package gitstore

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// Limits of what people may put into a commit message.
const (
	maxSubject = 200
	maxBody    = 8 << 10
)

// hubActor is the Actor of what the hub does by itself.
const hubActor = "hub"

// message builds a commit message. What people typed is cleaned, not refused: a strange character in a reason must
// not stop a rollback.
func message(subject, body string, actor Actor, trailers []Trailer) (string, error) {
	subject = clean(subject)
	if subject == "" {
		return "", fmt.Errorf("%w: no subject", ErrInvalid)
	}
	if len(subject) > maxSubject || len(body) > maxBody {
		return "", fmt.Errorf("%w: the message is too long", ErrInvalid)
	}
	var b strings.Builder
	b.WriteString(subject)
	b.WriteString("\n\n")
	if body = cleanLines(body); body != "" {
		b.WriteString(body)
		b.WriteString("\n\n")
	}
	if !hasTrailer(trailers, TrailerActor, "") {
		trailers = append(slices.Clone(trailers), Trailer{TrailerActor, actorName(actor)})
	}
	for _, t := range trailers {
		if !validTrailerKey(t.Key) {
			return "", fmt.Errorf("%w: trailer key %q", ErrInvalid, t.Key)
		}
		if value := clean(t.Value); value != "" {
			fmt.Fprintf(&b, "%s: %s\n", t.Key, value)
		}
	}
	return b.String(), nil
}

func actorName(a Actor) string {
	if name := clean(a.Name); name != "" {
		return name
	}
	return hubActor
}

// author is the person of an actor; the hub's own acts have the committer as author.
func (s *Store) author(a Actor) gitrepo.Person {
	strip := func(text string) string {
		return clean(strings.Map(func(r rune) rune {
			if r == '<' || r == '>' {
				return -1
			}
			return r
		}, text))
	}
	if name := strip(a.Name); name != "" {
		return gitrepo.Person{Name: name, Email: strip(a.Email)}
	}
	return s.committer()
}

func (s *Store) committer() gitrepo.Person {
	return gitrepo.Person{Name: s.cfg.Committer.Name, Email: s.cfg.Committer.Email}
}

// clean makes one line of printable text.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		default:
			return r
		}
	}, strings.ToValidUTF8(text, ""))
	return strings.Join(strings.Fields(text), " ")
}

// cleanLines cleans each line of a text and keeps the lines apart.
func cleanLines(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

func validTrailerKey(key string) bool {
	if key == "" {
		return false
	}
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// hasTrailer tells whether trailers hold key, with value unless that is empty.
func hasTrailer(trailers []Trailer, key, value string) bool {
	return slices.ContainsFunc(trailers, func(t Trailer) bool {
		return strings.EqualFold(t.Key, key) && (value == "" || t.Value == value)
	})
}

// withTrailer adds a trailer unless it is there.
func withTrailer(trailers []Trailer, key, value string) []Trailer {
	if value == "" || hasTrailer(trailers, key, value) {
		return trailers
	}
	return append(slices.Clone(trailers), Trailer{Key: key, Value: value})
}

// Trailers returns the trailers of a commit message: the lines "Key: Value" of its last paragraph.
func Trailers(message string) []Trailer {
	paragraphs := strings.Split(strings.TrimRight(message, "\n"), "\n\n")
	if len(paragraphs) < 2 {
		return nil
	}
	var out []Trailer
	for line := range strings.SplitSeq(paragraphs[len(paragraphs)-1], "\n") {
		key, value, ok := strings.Cut(line, ": ")
		if !ok || !validTrailerKey(key) {
			return nil
		}
		out = append(out, Trailer{Key: key, Value: value})
	}
	return out
}
