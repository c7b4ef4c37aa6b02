// This file reads what acme.sh says while it runs: how far the order is, and lines for people without secrets.

package acmesh

import (
	"bytes"
	"strings"
	"sync"

	"github.com/certferry/certferry/issuer"
)

const (
	// maxOutput bounds what is kept of acme.sh's output, in bytes.
	maxOutput = 256 << 10
	// maxLine bounds what is kept of a line until it ends, in bytes. A credential in it is found only where it is whole:
	// it is cut far behind what is told.
	maxLine = 64 << 10
)

// marks are what acme.sh says when an order comes to a phase.
var marks = []struct {
	text  string
	phase issuer.Phase
}{
	{"Using CA:", issuer.PhaseAccount},
	{"Signing from existing CSR", issuer.PhaseOrder},
	{"Getting webroot for domain", issuer.PhaseAuthorize},
	{"Adding TXT value:", issuer.PhaseDNS},
	{"Verifying:", issuer.PhaseValidate},
	{"Let's finalize the order", issuer.PhaseFinalize},
	{"Downloading cert", issuer.PhaseDownload},
	{"Cert success", issuer.PhaseCheck},
}

// phaseOf is the phase that a line tells of, empty for none.
func phaseOf(line string) issuer.Phase {
	for _, m := range marks {
		if strings.Contains(line, m.text) {
			return m.phase
		}
	}
	return ""
}

// output takes what acme.sh writes: it keeps the end, and tells each line.
type output struct {
	tell func(issuer.Event)
	mask *strings.Replacer

	mu    sync.Mutex
	buf   bytes.Buffer
	rest  []byte
	pem   bool
	phase issuer.Phase
}

// Write never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if over := o.buf.Len() - maxOutput; over > 0 {
		o.buf.Next(over)
	}
	o.rest = append(o.rest, p...)
	for {
		end := bytes.IndexByte(o.rest, '\n')
		if end < 0 {
			break
		}
		o.line(string(o.rest[:end]))
		o.rest = o.rest[end+1:]
	}
	if len(o.rest) > maxLine {
		o.rest = o.rest[:maxLine]
	}
	return len(p), nil
}

// flush tells the last line where nothing ended it.
func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.rest) > 0 {
		o.line(string(o.rest))
		o.rest = nil
	}
}

// line tells one line. Certificates are left out: they are on main, for who wants to read them.
func (o *output) line(text string) {
	switch {
	case strings.Contains(text, "-----BEGIN "):
		o.pem = true
		return
	case strings.Contains(text, "-----END "):
		o.pem = false
		return
	case o.pem:
		return
	}
	text = oneLine(o.mask.Replace(logStart.ReplaceAllString(text, "")))
	if text == "" || isNoise(text) {
		return
	}
	e := issuer.Event{Line: text}
	if phase := phaseOf(text); phase != "" && phase != o.phase {
		o.phase, e.Phase = phase, phase
	}
	if o.tell != nil {
		o.tell(e)
	}
}

// isNoise says whether a line is advice about acme.sh itself.
func isNoise(text string) bool {
	return strings.Contains(text, "--debug") || strings.Contains(text, "--log") || strings.Contains(text, "github.com") ||
		strings.Contains(text, "Please check log file") // which is removed with the home
}

func (o *output) reached() issuer.Phase {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.phase
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mask.Replace(o.buf.String())
}
