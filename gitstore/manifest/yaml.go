// This file reads, checks and writes the YAML documents of main.

package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxDocument bounds a YAML document, in bytes.
const maxDocument = 1 << 20

// document is what all kinds have in common.
type document interface {
	Validate() error
	setDefaults()
}

// DecodeCertificate reads certificates/<name>.yaml.
func DecodeCertificate(data []byte) (*Certificate, error) {
	return decodeYAML[Certificate](data, "certificate")
}

// DecodeServer reads servers/<name>.yaml.
func DecodeServer(data []byte) (*Server, error) {
	return decodeYAML[Server](data, "server")
}

// DecodeIssuer reads issuers/<name>.yaml.
func DecodeIssuer(data []byte) (*Issuer, error) {
	return decodeYAML[Issuer](data, "issuer")
}

// DecodeIssued reads issued/<xx>/<name>/certificate.yaml.
func DecodeIssued(data []byte) (*IssuedCertificate, error) {
	return decodeYAML[IssuedCertificate](data, "issued certificate")
}

// Encode writes the document in its canonical form, after Validate.
func (c *Certificate) Encode() ([]byte, error) { return encodeYAML(c) }

// Encode writes the document in its canonical form, after Validate.
func (s *Server) Encode() ([]byte, error) { return encodeYAML(s) }

// Encode writes the document in its canonical form, after Validate.
func (i *Issuer) Encode() ([]byte, error) { return encodeYAML(i) }

// Encode writes the document in its canonical form, after Validate.
func (c *IssuedCertificate) Encode() ([]byte, error) { return encodeYAML(c) }

// decodeYAML takes exactly one document without unknown or duplicate keys. Anchors, which could make a small file
// large, and merge keys and tags, which could say a thing twice, are refused.
func decodeYAML[T any, P interface {
	*T
	document
}](data []byte, kind string,
) (*T, error) {
	fault := func(err error) (*T, error) { return nil, fmt.Errorf("decode %s: %w", kind, err) }
	if len(data) > maxDocument {
		return fault(fmt.Errorf("more than %d bytes", maxDocument))
	}
	var tree yaml.Node
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return fault(oneLine(err))
	}
	if err := plain(&tree); err != nil {
		return fault(err)
	}
	v := new(T)
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(v); errors.Is(err, io.EOF) {
		return fault(errors.New("the file is empty"))
	} else if err != nil {
		return fault(oneLine(located(err, &tree)))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fault(errors.New("the file holds more than one document"))
	}
	P(v).setDefaults()
	if err := withLines(P(v).Validate(), &tree); err != nil {
		return nil, err
	}
	return v, nil
}

// plain refuses what YAML offers beyond lists, maps and scalars.
func plain(node *yaml.Node) error {
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		return fmt.Errorf("line %d: anchors and aliases are not supported", node.Line)
	case node.Style&yaml.TaggedStyle != 0:
		return fmt.Errorf("line %d: tags are not supported", node.Line)
	case node.Tag == "!!merge":
		return fmt.Errorf("line %d: merge keys are not supported", node.Line)
	}
	for _, child := range node.Content {
		if err := plain(child); err != nil {
			return err
		}
	}
	return nil
}

// unknownKey is how the library puts it.
var unknownKey = regexp.MustCompile(`field (\S+) not found in type [\w.]+`)

// located says where a time stands that cannot be read, which the library does not.
func located(err error, tree *yaml.Node) error {
	bad := new(time.ParseError)
	if !errors.As(err, &bad) {
		return err
	}
	line := tree.Line
	var walk func(*yaml.Node)
	walk = func(node *yaml.Node) {
		if node.Kind == yaml.ScalarNode && node.Value == bad.Value {
			line = node.Line
		}
		for _, child := range node.Content {
			walk(child)
		}
	}
	walk(tree)
	return fmt.Errorf("line %d: there is text where %s should be", line, expected["time.Time"])
}

// wrongType is how the library puts a value of another type; it quotes the value, if that is short.
var wrongType = regexp.MustCompile("cannot unmarshal !!([a-z]+)(?: `[^`]*`)? into ([\\w.\\[\\]*]+)")

// found and expected put YAML's and Go's types into words.
var (
	found    = map[string]string{"seq": "a list", "map": "a set of keys", "str": "text", "int": "a number", "float": "a number", "bool": "true or false", "null": "nothing"}
	expected = map[string]string{"string": "text", "int": "a whole number", "bool": "true or false", "time.Time": "a time such as 2026-11-23T12:00:00Z"}
)

// inWords says what stands where, and what should.
func inWords(text string) string {
	return wrongType.ReplaceAllStringFunc(text, func(match string) string {
		parts := wrongType.FindStringSubmatch(match)
		is, ok := found[parts[1]]
		if !ok {
			is = "something else"
		}
		wanted, ok := expected[parts[2]]
		if !ok {
			wanted = "a set of keys"
		}
		if strings.HasPrefix(parts[2], "[]") || parts[2] == "manifest.Waves" {
			wanted = "a list"
		}
		return "there is " + is + " where " + wanted + " should be"
	})
}

// oneLine keeps the library's list of errors, and what it repeats of the file, within one printable line.
func oneLine(err error) error {
	text := err.Error()
	if list := (*yaml.TypeError)(nil); errors.As(err, &list) {
		text = strings.Join(list.Errors, "; ")
	}
	text = inWords(unknownKey.ReplaceAllString(strings.TrimPrefix(text, "yaml: "), `unknown key "$1"`))
	text = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '\ufffd'
		}
		return r
	}, text)
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[:500], "") + "…"
	}
	return errors.New(text)
}

func encodeYAML(v document) ([]byte, error) {
	v.setDefaults()
	if err := v.Validate(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(v), enc.Close()); err != nil {
		return nil, fmt.Errorf("encode document: %w", err)
	}
	if out.Len() > maxDocument {
		return nil, fmt.Errorf("encode document: more than %d bytes", maxDocument)
	}
	return out.Bytes(), nil
}

func (c *Certificate) setDefaults() {
	if c.APIVersion == "" && c.Kind == "" {
		c.APIVersion, c.Kind = APIVersion, KindCertificate
	}
}

// Validate says everything that is wrong with the document, nil for nothing.
func (c *Certificate) Validate() error {
	f := &faults{kind: "certificate"}
	f.header(c.APIVersion, c.Kind, KindCertificate, c.Name)
	f.add(validNames(c.Names))
	f.add("keyType", validKeyType(c.KeyType))
	f.add("issuer", ValidName(c.Issuer))
	if c.FallbackIssuer != "" {
		f.add("fallbackIssuer", ValidName(c.FallbackIssuer))
		if c.FallbackIssuer == c.Issuer {
			f.addText("fallbackIssuer", "must be another one than issuer")
		}
	}
	if !validOption(c.Profile) {
		f.addText("profile", "takes letters, digits, dots, hyphens and underscores only")
	}
	if !validChain(c.PreferredChain) {
		f.addText("preferredChain", "takes letters, digits, spaces, dots, hyphens and brackets only")
	}
	f.add("secondKeyType", c.validSecond())
	f.add("keyCustody", c.validCustody())
	c.validateChallenges(f)
	if c.Renewal.DaysBeforeExpiry < 0 || c.Renewal.DaysBeforeExpiry > 365 {
		f.addText("renewal.daysBeforeExpiry", "must lie between 0 and 365")
	}
	if k := c.Renewal.Key; k != "" && k != "new" && k != "keep" {
		f.addText("renewal.key", "must be new or keep")
	}
	f.add("renewal.pausedReason", validText(c.Renewal.PausedReason))
	f.add("review", validReview(c.Review))
	f.add("waves", c.Waves.validate())
	seen := map[Placement]bool{}
	for i, p := range c.Deployments {
		key := fmt.Sprintf("deployments[%d]", i)
		f.add(key, p.validate())
		if seen[p] {
			f.addText(key, "stands there twice")
		}
		seen[p] = true
	}
	return f.join()
}

func validKeyType(t string) error {
	switch t {
	case "", "ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096":
		return nil
	default:
		return errors.New("must be ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096")
	}
}

func (p *Placement) validate() error {
	switch {
	case (p.Server == "") == (p.Selector == ""):
		return errors.New("give either server or selector")
	case p.Server != "" && ValidName(p.Server) != nil:
		return fmt.Errorf("server: %w", ValidName(p.Server))
	case ValidName(p.Deployer) != nil:
		return fmt.Errorf("deployer: %w", ValidName(p.Deployer))
	case ValidName(p.Target) != nil:
		return fmt.Errorf("target: %w", ValidName(p.Target))
	case p.SecondTarget != "" && ValidName(p.SecondTarget) != nil:
		return fmt.Errorf("secondTarget: %w", ValidName(p.SecondTarget))
	case p.SecondTarget == p.Target:
		return errors.New("secondTarget: must be another target")
	}
	if p.Selector != "" {
		if _, err := ParseSelector(p.Selector); err != nil {
			return fmt.Errorf("selector: %w", err)
		}
	}
	return nil
}

func (s *Server) setDefaults() {
	if s.APIVersion == "" && s.Kind == "" {
		s.APIVersion, s.Kind = APIVersion, KindServer
	}
}

// Validate says everything that is wrong with the document, nil for nothing.
func (s *Server) Validate() error {
	f := &faults{kind: "server"}
	f.header(s.APIVersion, s.Kind, KindServer, s.Name)
	if len(s.Labels) > 64 {
		f.addText("labels", "must be at most 64")
	}
	for key, value := range s.Labels {
		if !validLabelText(key) || value != "" && !validLabelText(value) {
			f.addText("labels", "keys and values take letters, digits, dots, hyphens, underscores and slashes, 63 at most")
			break
		}
	}
	if h := s.Hold; h != nil {
		if !isHex(h.Commit, 40) {
			f.addText("hold.commit", "must have 40 lower-case hexadecimal digits")
		}
		if h.By == "" {
			f.addText("hold.by", "is missing")
		}
		f.add("hold.by", validText(h.By))
		if !wholeUTC(h.Since) {
			f.addText("hold.since", "must be whole seconds in UTC")
		}
		f.add("hold.reason", validText(h.Reason))
	}
	return f.join()
}

func (i *Issuer) setDefaults() {
	if i.APIVersion == "" && i.Kind == "" {
		i.APIVersion, i.Kind = APIVersion, KindIssuer
	}
}

// Validate says everything that is wrong with the document, nil for nothing.
func (i *Issuer) Validate() error {
	f := &faults{kind: "issuer"}
	f.header(i.APIVersion, i.Kind, KindIssuer, i.Name)
	switch i.Type {
	case "acmesh":
		if i.PrivateCA != nil {
			f.addText("privateCA", "is for the type privateca only")
		}
		if i.ACME == nil {
			f.addText("acme", "is missing")
		} else {
			f.add("acme", i.ACME.validate())
		}
	case "privateca":
		if i.ACME != nil {
			f.addText("acme", "is for the type acmesh only")
		}
		if i.PrivateCA != nil {
			f.add("privateCA.lifetime", validLifetime(i.PrivateCA.Lifetime))
			if i.PrivateCA.CA != "" {
				f.add("privateCA.ca", ValidName(i.PrivateCA.CA))
			}
		}
	default:
		f.addText("type", "must be privateca or acmesh")
	}
	return f.join()
}

func (a *ACMEIssuer) validate() error {
	u, err := url.Parse(a.Directory)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(a.Directory) > 500 ||
		!only(a.Directory, alphanumeric+":/._~%?=+-[]"):
		return errors.New("directory: must be a plain https URL")
	case a.Email != "" && !validEmail(a.Email):
		return errors.New("email: must be an address such as ops@example.com")
	case a.EABCredential != "" && ValidName(a.EABCredential) != nil:
		return fmt.Errorf("eabCredential: %w", ValidName(a.EABCredential))
	case !validOption(a.Profile):
		return errors.New("profile: takes letters, digits, dots, hyphens and underscores only")
	case !validChain(a.PreferredChain):
		return errors.New("preferredChain: takes letters, digits, spaces, dots, hyphens and brackets only")
	}
	return nil
}

func validEmail(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && local != "" && len(s) <= 254 && strings.Contains(domain, ".") && ValidDNSName(domain) == nil &&
		only(local, alphanumeric+"._+-")
}

func validOption(s string) bool {
	return len(s) <= 64 && only(s, alphanumeric+"._-")
}

func validChain(s string) bool {
	return len(s) <= 128 && only(s, alphanumeric+" .-()")
}

func validLifetime(s string) error {
	if s == "" {
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Minute || d > 825*24*time.Hour {
		return errors.New("must be a duration between 1m and 19800h, such as 2160h")
	}
	return nil
}

func (c *IssuedCertificate) setDefaults() {
	if c.APIVersion == "" && c.Kind == "" {
		c.APIVersion, c.Kind = APIVersion, KindIssuedCertificate
	}
}

// Validate says everything that is wrong with the document, nil for nothing.
func (c *IssuedCertificate) Validate() error {
	f := &faults{kind: "issued certificate"}
	f.header(c.APIVersion, c.Kind, KindIssuedCertificate, c.Name)
	f.add(validNames(c.Names))
	f.add("issuer", ValidName(c.Issuer))
	f.add("keyType", validKeyType(c.KeyType))
	if c.Serial == "" || len(c.Serial) > 64 || !only(c.Serial, "0123456789abcdef") {
		f.addText("serial", "must be lower-case hexadecimal digits")
	}
	if !wholeUTC(c.NotBefore) || !wholeUTC(c.NotAfter) || !c.NotBefore.Before(c.NotAfter) {
		f.addText("notBefore, notAfter", "must be whole seconds in UTC, one after the other")
	}
	if !isHex(c.LeafSHA256, 64) || !isHex(c.SPKISHA256, 64) {
		f.addText("leafSha256, spkiSha256", "must have 64 lower-case hexadecimal digits")
	}
	if c.KeyCustody != "" && c.KeyCustody != CustodyServer {
		f.addText("keyCustody", "must be server or empty")
	}
	if c.KeyCustody == CustodyServer {
		f.add("keyServer", ValidName(c.KeyServer))
	} else if c.KeyServer != "" {
		f.addText("keyServer", "is for the keyCustody server only")
	}
	if r := c.Revoked; r != nil {
		if _, known := RevocationReasons[r.Reason]; !known || !wholeUTC(r.At) {
			f.addText("revoked", "needs a reason of RFC 5280 and a time of whole seconds in UTC")
		}
		f.add("revoked.by", validText(r.By))
	}
	return f.join()
}

// validText refuses what would break a line of a log or a commit message.
func validText(s string) error {
	if len(s) > 1024 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' }) {
		return errors.New("must be one line of at most 1024 characters")
	}
	return nil
}
