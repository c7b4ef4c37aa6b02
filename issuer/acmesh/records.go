// This file is about TXT records: which hook makes which, whether the world sees them, and that none is left behind.

package acmesh

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/issuer"
)

// wrapperName is the hook that acme.sh is told to use.
const wrapperName = "dns_certferry"

//go:embed shell/dns_certferry.sh
var wrapperScript string

//go:embed shell/records.sh
var recordsScript string

// Files of a home that the wrapper and this program share. Lines are "name value".
const (
	mapFile     = "dns.map"
	addedFile   = "dns.added"
	doneFile    = "dns.done"
	removedFile = "dns.removed"
	failedFile  = "dns.fail"
	seenFile    = "dns.seen"
	todoFile    = "dns.todo"
	// confFile is what hooks keep of a certificate, such as the ids of records.
	confFile = "dns.conf"
	// recordsFile is recordsScript.
	recordsFile = "records.sh"
)

// lookEvery is the time between two looks at the servers of a zone.
const lookEvery = 2 * time.Second

// recordName is where the TXT record for a name goes.
func recordName(name string, c issuer.Challenge) string {
	switch {
	case c.DomainAlias != "":
		return c.DomainAlias
	case c.Alias != "":
		return "_acme-challenge." + c.Alias
	default:
		return "_acme-challenge." + strings.TrimPrefix(name, "*.")
	}
}

// hookFile finds the file of a hook.
func (i *Issuer) hookFile(hook string) (string, error) {
	for _, dir := range []string{filepath.Dir(i.cfg.Script), i.cfg.HooksDir} {
		if dir == "" {
			continue
		}
		path := filepath.Join(dir, "dnsapi", hook+".sh")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fs.ErrNotExist
}

// hookOf is a record that a hook makes.
type hookOf struct{ record, hook, path string }

// takeHooks finds the hook of each record, and takes the credentials of all of them into the environment of the run.
func (h *home) takeHooks(i *Issuer, req *issuer.Request) ([]hookOf, error) {
	var all []hookOf
	for _, name := range req.Names {
		c := req.ChallengeOf(name)
		if c.Type != issuer.DNS01 {
			continue
		}
		path, err := i.hookFile(c.Hook)
		if err != nil {
			return nil, permanent("acme.sh has no DNS hook %s", c.Hook)
		}
		made := hookOf{recordName(name, c), c.Hook, path}
		n := slices.IndexFunc(all, func(other hookOf) bool { return other.record == made.record })
		if n >= 0 && all[n] != made {
			return nil, permanent("two DNS hooks would make the record %s: give both names the same challenge", made.record)
		} else if n < 0 {
			all = append(all, made)
		}
		if err := h.addCredentials(c); err != nil {
			return nil, err
		}
		h.lastRecord = made.record
	}
	return all, nil
}

// setDNS says which hook makes which record.
func (h *home) setDNS(i *Issuer, req *issuer.Request) error {
	hooks, err := h.takeHooks(i, req)
	if err != nil || len(hooks) == 0 {
		return err
	}
	h.hooks = hooks
	return errors.Join(h.layDNS(), h.write(confFile, ""))
}

// layDNS lays out what acme.sh runs for records.
func (h *home) layDNS() error {
	var lines strings.Builder
	for _, of := range h.hooks {
		lines.WriteString(of.record + " " + of.hook + " " + of.path + "\n")
	}
	return errors.Join(
		h.write(mapFile, lines.String()),
		h.write(filepath.Join("dnsapi", wrapperName+".sh"), wrapperScript),
		h.write(recordsFile, recordsScript),
	)
}

// addCredentials takes the variables of a challenge. One order has one environment: two credentials cannot give the same
// variable two values.
func (h *home) addCredentials(c issuer.Challenge) error {
	for name, value := range c.Credentials {
		if have, ok := h.credentials[name]; ok && have != value {
			return permanent("two credentials of this order give the variable %s different values: order these names apart", name)
		}
		h.credentials[name] = value
	}
	if c.Credential != "" && !slices.Contains(h.credentialNames, c.Credential) {
		h.credentialNames = append(h.credentialNames, c.Credential)
	}
	return nil
}

// watchRecords waits until all records are made, then until the world sees them or wait is over, and lets acme.sh go on.
func (h *home) watchRecords(ctx context.Context, lookup func(context.Context, string) ([]string, error), wait time.Duration) {
	tick := time.NewTicker(time.Second / 4)
	defer tick.Stop()
	for !h.isMade(h.lastRecord) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	looking, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if lookup == nil {
		<-looking.Done()
	} else {
		for _, r := range h.records(doneFile) {
			if awaitRecord(looking, lookup, r.name, r.value) != nil {
				break // the time is over: the CA may see what we do not
			}
		}
	}
	if ctx.Err() == nil { // who is stopped is to go no further
		_ = h.write(seenFile, "") // where it cannot be written, acme.sh waits by itself
	}
}

func (h *home) isMade(name string) bool {
	return slices.ContainsFunc(h.records(doneFile), func(r record) bool { return r.name == name })
}

// awaitRecord waits until a record is seen.
func awaitRecord(ctx context.Context, lookup func(context.Context, string) ([]string, error), name, value string) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		values, err := lookup(ctx, name)
		if err == nil && slices.Contains(values, value) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// recordValue is a digest in base64url (RFC 8555 §8.4), or the text of a test.
var recordValue = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)

// record is a TXT record.
type record struct{ name, value string }

// failedRecord is the record that could not be made, empty for none.
func (h *home) failedRecord() string {
	data, err := h.read(failedFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// records reads a list of records; a file that is not there has none. Hooks can write there: what is not a record of the
// order is left out.
func (h *home) records(file string) []record {
	data, err := h.read(file)
	if err != nil {
		return nil
	}
	var all []record
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		known := slices.ContainsFunc(h.hooks, func(of hookOf) bool { return of.record == name })
		if ok && known && recordValue.MatchString(value) && strings.HasSuffix(line, "\n") {
			all = append(all, record{name, value})
		}
	}
	return all
}

// left are the records that were added, or may have been, and not removed.
func (h *home) left() []record {
	var all []record
	removed := h.records(removedFile)
	for _, r := range h.records(addedFile) {
		if !slices.Contains(removed, r) && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// standing are the records that are left and may be in the zone. One that the provider refused to take was never there.
func (h *home) standing() []record {
	failed, done := h.failedRecord(), h.records(doneFile)
	return slices.DeleteFunc(h.left(), func(r record) bool { return r.name == failed && !slices.Contains(done, r) })
}

// clearDNS removes what is left of an order's records. What cannot be removed is told by an error.
func (i *Issuer) clearDNS(ctx context.Context, h *home, tell func(issuer.Event)) error {
	left := h.left()
	if len(left) == 0 {
		return nil
	}
	_, err := i.changeRecords(ctx, h, "rm", left, tell)
	left = h.left()
	if len(left) == 0 {
		return nil
	}
	if err == nil {
		err = errors.New("the DNS hook failed")
	}
	var names []string
	for _, r := range left {
		names = append(names, r.name)
	}
	return fmt.Errorf("remove TXT record %s: %w", strings.Join(names, ", "), err)
}

// changeRecords adds or removes records through their hooks.
func (i *Issuer) changeRecords(ctx context.Context, h *home, do string, records []record, tell func(issuer.Event)) (result, error) {
	var todo strings.Builder
	for _, r := range records {
		todo.WriteString(r.name + " " + r.value + "\n")
	}
	if err := h.write(todoFile, todo.String()); err != nil {
		return result{}, err
	}
	h.do = do
	return i.exec(ctx, h, []string{".", filepath.Join(h.dir, recordsFile)}, tell)
}

// TestDNS adds a random TXT record below domain, waits until it is seen, and removes it. It is an issuer.DNSTester.
func (i *Issuer) TestDNS(ctx context.Context, c issuer.Challenge, domain string, progress func(issuer.Event)) error {
	if len(domain) > 200 || !dnsName.MatchString(domain) || strings.HasPrefix(domain, "*.") {
		return permanent("the domain must be two or more labels of lower-case letters, digits and hyphens")
	}
	if err := i.checkDNS(c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, i.cfg.Timeout)
	defer cancel()
	token := strings.ToLower(rand.Text())
	req := &issuer.Request{ID: "test-" + token[:12], Names: []string{domain}, Challenge: c, Progress: progress}
	h, err := i.newFolder(req.ID)
	if err != nil {
		return &issuer.Error{Class: issuer.Local, Detail: "prepare a folder for acme.sh", Err: err}
	}
	defer i.remove(ctx, h)
	if err := h.setDNS(i, req); err != nil {
		return err
	}
	h.finishMask()
	if err := h.record(false); err != nil {
		return local("prepare a folder for acme.sh", err)
	}
	h.lastRecord = "" // nobody waits in the shell
	r := record{recordName(domain, c), token}
	req.Tell(issuer.Event{Phase: issuer.PhaseDNS, Line: "adding the TXT record " + r.name})
	ran, err := i.changeRecords(ctx, h, "add", []record{r}, progress)
	if err == nil && ran.code != 0 {
		err = &issuer.Error{Class: issuer.DNSProvider, Name: domain, Phase: issuer.PhaseDNS, Detail: "the DNS provider did not take the TXT record: " + lastLine(ran.output)}
	}
	if err == nil && i.cfg.LookupTXT != nil {
		req.Tell(issuer.Event{Line: "looking for it at the servers of the zone"})
		within, stop := context.WithTimeout(ctx, max(i.cfg.DNSWait, 2*time.Minute))
		defer stop()
		if missed := awaitRecord(within, i.cfg.LookupTXT, r.name, r.value); missed != nil {
			err = &issuer.Error{Class: issuer.DNSProvider, Name: domain, Phase: issuer.PhaseDNS, Detail: "the TXT record was added, and the servers of the zone do not show it", Err: missed}
		}
	}
	req.Tell(issuer.Event{Line: "removing it"})
	// It is removed even when nobody waits for the answer any more.
	clearing, done := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer done()
	if cerr := i.clearDNS(clearing, h, progress); cerr != nil {
		err = errors.Join(err, &issuer.Error{Class: issuer.DNSProvider, Name: domain, Phase: issuer.PhaseDNS, Detail: cerr.Error()})
	}
	return err
}
