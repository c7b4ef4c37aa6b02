// Package inventory says which certificates are on the server: those that its server software uses, as the
// configuration names them, and those at the targets of the policy. It compares what is on disk with what is served.
// Whatever cannot be read is a line of the inventory and never an end of it. Nothing is changed.
package inventory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/hub/apiv1"
)

// What an inventory may hold at most; the hub takes no more.
const (
	maxRecords   = 10_000
	maxSoftware  = 100
	maxFaults    = 100
	maxUses      = 100
	maxNames     = 200
	maxListeners = 100
)

// Config is what New needs.
type Config struct {
	Finders []agent.Finder
	// Prober looks at what is served; nil looks at files only.
	Prober agent.Prober
	Now    func() time.Time
}

// Scanner makes inventories.
type Scanner struct{ cfg Config }

// New returns a scanner.
func New(cfg Config) *Scanner { return &Scanner{cfg: cfg} }

// Scan makes the inventory of this server, targets included.
func (s *Scanner) Scan(ctx context.Context, targets []agent.Target) apiv1.Inventory {
	list := &listing{now: s.cfg.Now(), records: map[place]*record{}, roots: map[string]files{}}
	var software []apiv1.FoundSoftware
	for _, finder := range s.cfg.Finders {
		instances, err := finder.Find(ctx)
		if err != nil {
			software = append(software, apiv1.FoundSoftware{Name: "unknown", Faults: []string{clip(err.Error())}})
		}
		for i := range instances {
			software = append(software, describe(&instances[i]))
			list.addInstance(&instances[i])
		}
	}
	for _, t := range targets {
		list.addTarget(t)
	}
	list.examine()
	if s.cfg.Prober != nil {
		list.compare(ctx, s.cfg.Prober)
	}
	return apiv1.Inventory{Software: software[:min(len(software), maxSoftware)], Certificates: list.result()}
}

func describe(i *agent.Instance) apiv1.FoundSoftware {
	out := apiv1.FoundSoftware{
		Name: i.Software, Version: clip(i.Version), PID: i.PID, Config: i.Config, Container: i.Root != "",
	}
	for _, f := range i.Faults[:min(len(i.Faults), maxFaults)] {
		where := f.File
		if f.Line > 0 {
			where = fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		out.Faults = append(out.Faults, clip(where+": "+f.Message))
	}
	return out
}

// place is one certificate file below one root folder.
type place struct{ root, path string }

// record is one certificate file on its way into the inventory.
type record struct {
	apiv1.InventoryRecord

	root string
	// site is the first use: it says where chain and key stand.
	site  agent.Site
	sites []agent.Site
	// running says that a running instance uses it.
	running bool
}

// listing is an inventory in the making.
type listing struct {
	now     time.Time
	records map[place]*record
	roots   map[string]files
}

// at returns the record of a file, nil where there are too many.
func (l *listing) at(root string, site agent.Site) *record {
	key := place{root, site.Certificate}
	r := l.records[key]
	if r == nil && len(l.records) < maxRecords {
		r = &record{root: root, site: site}
		r.Path, r.Key = site.Certificate, site.Key
		l.records[key] = r
	}
	return r
}

func (l *listing) addInstance(i *agent.Instance) {
	for _, site := range i.Sites {
		r := l.at(i.Root, site)
		if r == nil {
			return
		}
		r.running = r.running || i.PID != 0
		if i.PID != 0 && !site.Client {
			r.sites = append(r.sites, site)
		}
		if len(r.Uses) < maxUses {
			r.Uses = append(r.Uses, use(i.Software, site))
		}
	}
}

func (l *listing) addTarget(t agent.Target) {
	site := agent.Site{
		Certificate: cmp.Or(t.Certificate, t.Combined), Key: cmp.Or(t.Key, t.Combined), Chain: t.Chain, Format: agent.FormatPEM,
	}
	if site.Certificate == "" {
		return // a key store, of which the password is not for this
	}
	if r := l.at("", site); r != nil {
		r.Target = t.Name
	}
}

func use(software string, site agent.Site) apiv1.FoundUse {
	u := apiv1.FoundUse{Software: software, Names: bounded(site.Names, maxNames), Client: site.Client, File: site.File, Line: site.Line}
	for _, l := range site.Listeners[:min(len(site.Listeners), maxListeners)] {
		text := l.Address
		if l.Network != "tcp" {
			text = l.Network + ":" + l.Address
		}
		u.Listeners = append(u.Listeners, text)
	}
	return u
}

// result lists the records in the order of their paths.
func (l *listing) result() []apiv1.InventoryRecord {
	all := make([]apiv1.InventoryRecord, 0, len(l.records))
	for _, r := range l.records {
		all = append(all, r.InventoryRecord)
	}
	slices.SortFunc(all, func(a, b apiv1.InventoryRecord) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.LeafSHA256, b.LeafSHA256))
	})
	return all
}

func bounded(list []string, limit int) []string {
	out := make([]string, 0, min(len(list), limit))
	for _, s := range list[:min(len(list), limit)] {
		out = append(out, clip(s))
	}
	return out
}

// clip shortens what stands in files that anybody may have written.
func clip(text string) string {
	if len(text) > 500 {
		return strings.ToValidUTF8(text[:500], "") + "…"
	}
	return strings.ToValidUTF8(text, "")
}
