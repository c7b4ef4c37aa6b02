package gitrepo

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// signatureHeader carries the signature of a commit; its further lines start with a space.
const signatureHeader = "gpgsig"

// encodeCommit returns the bytes of a commit object, signed if sign is not nil.
func encodeCommit(c *Commit, sign SignFunc) ([]byte, error) {
	var head bytes.Buffer
	fmt.Fprintf(&head, "tree %s\n", c.Tree)
	for _, p := range c.Parents {
		fmt.Fprintf(&head, "parent %s\n", p)
	}
	fmt.Fprintf(&head, "author %s\n", c.Author.encode())
	fmt.Fprintf(&head, "committer %s\n", c.Committer.encode())
	body := "\n" + strings.TrimRight(c.Message, "\n") + "\n"
	if sign == nil {
		return append(head.Bytes(), body...), nil
	}
	armored, err := sign(append(bytes.Clone(head.Bytes()), body...))
	if err != nil {
		return nil, fmt.Errorf("sign commit: %w", err)
	}
	text := strings.Trim(strings.ReplaceAll(string(armored), "\r\n", "\n"), "\n")
	if text == "" {
		return nil, fmt.Errorf("sign commit: the signature is empty")
	}
	head.WriteString(signatureHeader + " " + strings.ReplaceAll(text, "\n", "\n ") + "\n")
	return append(head.Bytes(), body...), nil
}

// encode returns p as a commit header holds it, in UTC and whole seconds.
func (p Person) encode() string {
	return fmt.Sprintf("%s <%s> %d +0000", p.Name, p.Email, p.When.Unix())
}

// validate refuses what would break out of a commit header.
func (p Person) validate(role string) error {
	if strings.TrimSpace(p.Name) == "" {
		return invalid("%s has no name", role)
	}
	for _, s := range []string{p.Name, p.Email} {
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '<' || r == '>' }) {
			return invalid("%s holds a control character, < or >", role)
		}
	}
	return nil
}

// ParseCommit parses the bytes of a commit object and computes its hash. It refuses what would let two readers see
// two things: doubled headers, two signatures, missing or misplaced lines.
func ParseCommit(data []byte) (*Commit, error) {
	head, message, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok {
		return nil, corrupt("commit has no message")
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return nil, corrupt("commit header holds a zero byte")
	}
	p := commitParser{lines: strings.Split(string(head), "\n")}
	c := &Commit{Hash: hashObject(plumbing.CommitObject, data), Message: string(message)}
	if err := p.parse(c); err != nil {
		return nil, err
	}
	c.Payload = append([]byte(strings.Join(p.payload, "\n")+"\n\n"), message...)
	return c, nil
}

// commitParser goes through the header lines of a commit and keeps those that the signature is over.
type commitParser struct {
	lines   []string
	payload []string
}

// take returns the value of the next line if its key is key.
func (p *commitParser) take(key string) (string, bool) {
	if len(p.lines) == 0 {
		return "", false
	}
	value, ok := strings.CutPrefix(p.lines[0], key+" ")
	if ok {
		p.payload = append(p.payload, p.lines[0])
		p.lines = p.lines[1:]
	}
	return value, ok
}

func (p *commitParser) parse(c *Commit) error {
	tree, ok := p.take("tree")
	if !ok {
		return corrupt("commit does not start with its tree")
	}
	var err error
	if c.Tree, err = ParseHash(tree); err != nil {
		return corrupt("commit's tree: %v", err)
	}
	for parent, ok := p.take("parent"); ok; parent, ok = p.take("parent") {
		h, err := ParseHash(parent)
		if err != nil {
			return corrupt("commit's parent: %v", err)
		}
		c.Parents = append(c.Parents, h)
	}
	if c.Author, err = p.person("author"); err != nil {
		return err
	}
	if c.Committer, err = p.person("committer"); err != nil {
		return err
	}
	return p.parseRest(c)
}

// parseRest reads the headers after the committer: at most one signature, and others that only pass through.
func (p *commitParser) parseRest(c *Commit) error {
	for len(p.lines) > 0 {
		key, value, ok := strings.Cut(p.lines[0], " ")
		n := 1
		for n < len(p.lines) && strings.HasPrefix(p.lines[n], " ") {
			n++
		}
		block := p.lines[:n]
		p.lines = p.lines[n:]
		switch {
		case !ok || key == "":
			return corrupt("commit has a header line without a key")
		case key == signatureHeader && c.Signature != "":
			return corrupt("commit has two signatures")
		case key == signatureHeader:
			c.Signature = signatureText(value, block[1:])
		case key == "encoding" || key == "mergetag":
			p.payload = append(p.payload, block...)
		default:
			return corrupt("commit has a doubled, misplaced or unknown header line")
		}
	}
	return nil
}

// signatureText joins a folded signature.
func signatureText(first string, folded []string) string {
	var b strings.Builder
	b.WriteString(first)
	b.WriteByte('\n')
	for _, line := range folded {
		b.WriteString(line[1:])
		b.WriteByte('\n')
	}
	return b.String()
}

func (p *commitParser) person(key string) (Person, error) {
	value, ok := p.take(key)
	if !ok {
		return Person{}, corrupt("commit has no %s where it belongs", key)
	}
	person, ok := parsePerson(value)
	if !ok {
		return Person{}, corrupt("commit's %s is malformed", key)
	}
	return person, nil
}

// parsePerson parses "Name <email> seconds zone".
func parsePerson(s string) (Person, bool) {
	name, rest, ok := strings.Cut(s, "<")
	if !ok {
		return Person{}, false
	}
	email, when, ok := strings.Cut(rest, "> ")
	if !ok || strings.ContainsAny(email, "<>") {
		return Person{}, false
	}
	seconds, zone, ok := strings.Cut(when, " ")
	if !ok {
		return Person{}, false
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || unix < 0 {
		return Person{}, false
	}
	z, err := time.Parse("-0700", zone)
	if err != nil {
		return Person{}, false
	}
	_, offset := z.Zone()
	at := time.Unix(unix, 0).UTC()
	if offset != 0 {
		at = at.In(time.FixedZone("", offset))
	}
	return Person{Name: strings.TrimSpace(name), Email: email, When: at}, true
}
