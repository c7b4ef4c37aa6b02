package reconcile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// urgent is how long before the end of what a server has no wave holds the new issue back any more: a server without
// a working certificate is worse than any rollout.
const urgent = day

// reportDepth is how many states of a server are looked at for the one that a report is about.
const reportDepth = 16

// Where a server stands in a rollout; the values of apiv1.RolloutServer.State.
const (
	serverLater    = "later"
	serverPending  = "pending"
	serverDeployed = "deployed"
	serverFailed   = "failed"
	serverOffline  = "offline"
)

// member is a server that takes part in a rollout.
type member struct {
	row  *hub.Server
	rank [sha256.Size]byte
	wave int
}

// rollout is a rollout under way with those who take part, in the order in which they come.
type rollout struct {
	*manifest.Rollout

	sizes   []int
	members []member
	waveOf  map[string]int
}

// rollouts works out who takes part in the rollouts of snapshot.
func (r *Reconciler) rollouts(snapshot *gitstore.Snapshot, servers []hub.Server, placed *placements) map[string]*rollout {
	all := map[string]*rollout{}
	for name, document := range snapshot.Rollouts {
		if issued := snapshot.Issued[name]; issued != nil && issued.LeafSHA256 == document.LeafSHA256 {
			all[name] = &rollout{Rollout: document, waveOf: map[string]int{}}
		}
	}
	if len(all) == 0 {
		return all
	}
	for i := range servers {
		row := &servers[i]
		for _, name := range r.takesPart(snapshot, row, placed) {
			if ro := all[name]; ro != nil {
				ro.members = append(ro.members, member{row: row, rank: sha256.Sum256([]byte(ro.LeafSHA256 + "\n" + row.Name))})
			}
		}
	}
	for _, ro := range all {
		ro.arrange()
	}
	return all
}

// takesPart lists the certificates of a server that gets what main says.
func (r *Reconciler) takesPart(snapshot *gitstore.Snapshot, row *hub.Server, placed *placements) []string {
	intent := snapshot.Servers[row.Name]
	if row.State != hub.ServerApproved || intent == nil || intent.Hold != nil {
		return nil
	}
	var names []string
	for _, s := range placed.on(row.Name, intent.Labels) {
		if !slices.Contains(names, s.certificate) {
			names = append(names, s.certificate)
		}
	}
	return names
}

// arrange gives each member its wave. The order is a draw that stays the same for the whole rollout, and is another one
// for the next: it is not always the same server that goes first.
func (ro *rollout) arrange() {
	slices.SortFunc(ro.members, func(a, b member) int {
		return cmp.Or(slices.Compare(a.rank[:], b.rank[:]), strings.Compare(a.row.Name, b.row.Name))
	})
	ro.sizes = ro.Waves.Sizes(len(ro.members))
	wave := 1
	for i := range ro.members {
		for wave < len(ro.sizes) && i >= ro.sizes[wave-1] {
			wave++
		}
		ro.members[i].wave = wave
		ro.waveOf[ro.members[i].row.Name] = wave
	}
}

// holdsBack tells whether a server keeps what it has because its wave has not begun.
func (ro *rollout) holdsBack(server string, tip *gitstore.Tip, now time.Time) bool {
	if ro == nil || tip == nil || ro.waveOf[server] <= ro.Wave {
		return false
	}
	held := false
	for i := range tip.Manifest.Deployments {
		d := &tip.Manifest.Deployments[i]
		if d.Certificate != ro.Name {
			continue
		}
		if d.LeafSHA256 == ro.LeafSHA256 || d.NotAfter.Sub(now) < urgent {
			return false
		}
		held = true
	}
	return held
}

// wavesOf are the waves of a certificate, or the hub's.
func (r *Reconciler) wavesOf(want *manifest.Certificate) manifest.Waves {
	if len(want.Waves) > 0 {
		return want.Waves
	}
	return r.cfg.Waves
}

// advance takes each rollout a step further, stops it, or ends it, as its servers report.
func (r *Reconciler) advance(ctx context.Context) error {
	snapshot, err := r.cfg.Store.Snapshot()
	if err != nil || len(snapshot.Rollouts) == 0 {
		return err
	}
	servers, err := r.servers(ctx)
	if err != nil {
		return err
	}
	under := r.rollouts(snapshot, servers, newPlacements(snapshot))
	var faults []error
	for _, name := range sortedKeys(snapshot.Rollouts) {
		if err := r.advanceOne(ctx, snapshot, name, under[name]); err != nil {
			faults = append(faults, fmt.Errorf("rollout of %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

func (r *Reconciler) advanceOne(ctx context.Context, snapshot *gitstore.Snapshot, name string, ro *rollout) error {
	if ro == nil {
		return nil // it is about an issue that was replaced: what comes next begins with the publication
	}
	if len(ro.members) == 0 {
		return r.endRollout(ctx, snapshot, name, "end rollout of "+name+": there is nothing left to roll out")
	}
	if ro.State != manifest.RolloutRunning {
		return nil
	}
	if err := r.cfg.Alerts.Clear(ctx, hub.AlertRolloutStopped, name); err != nil {
		return err
	}
	look, err := r.look(ctx, ro)
	if err != nil {
		return err
	}
	now := r.cfg.Now().UTC().Truncate(time.Second)
	next := *ro.Rollout
	overdue := now.Sub(ro.WaveStartedAt) >= r.cfg.WaveTimeout
	switch {
	case len(look.failed) > 0:
		next.State, next.Reason = manifest.RolloutFailed, look.failed[0].reason()
		return r.stopRollout(ctx, snapshot, &next, hub.AlertCritical)
	case overdue && (len(look.pending) > 0 || look.silent(ro)):
		next.State, next.Reason = manifest.RolloutPaused, "nothing heard within "+r.cfg.WaveTimeout.String()+" from "+few(append(look.pending, look.offline...))
		return r.stopRollout(ctx, snapshot, &next, hub.AlertWarning)
	case len(look.pending) > 0, look.silent(ro), now.Before(look.last.Add(r.cfg.Soak)):
		return nil
	case ro.Wave >= len(ro.sizes):
		return r.endRollout(ctx, snapshot, name, fmt.Sprintf("complete rollout of %s: %s", name, plural(len(ro.members), "server")))
	}
	next.Wave, next.WaveStartedAt = ro.Wave+1, now
	size := ro.sizes[ro.Wave] - ro.sizes[ro.Wave-1]
	subject := fmt.Sprintf("roll out %s: wave %d of %d, %s", name, next.Wave, len(ro.sizes), plural(size, "server"))
	return r.writeRollout(ctx, snapshot, &next, subject, nil)
}

// standing is how far the servers of the waves that have begun are.
type standing struct {
	// deployed are those that have it; current those of them in the newest wave.
	deployed int
	current  int
	pending  []string
	offline  []string
	failed   []failure
	// last is when the newest success was reported.
	last time.Time
}

// silent tells whether nobody spoke for the newest wave. The last one may be of servers that are away: they get the
// issue when they come back.
func (s *standing) silent(ro *rollout) bool {
	return s.deployed == 0 || s.current == 0 && ro.Wave < len(ro.sizes)
}

// failure is a server that could not deploy the new issue.
type failure struct{ server, detail string }

func (f failure) reason() string {
	first, _, _ := strings.Cut(f.detail, "\n")
	text := f.server + ": " + first
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}

// look asks how far the servers are whose wave has begun.
func (r *Reconciler) look(ctx context.Context, ro *rollout) (*standing, error) {
	reports, err := r.reports(ctx, ro.Name)
	if err != nil {
		return nil, err
	}
	s := &standing{}
	for i := range ro.members {
		if m := &ro.members[i]; m.wave <= ro.Wave {
			if err := r.lookAt(ro, m, reports[m.row.Name], s); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

func (r *Reconciler) reports(ctx context.Context, certificate string) (map[string][]hub.Observation, error) {
	rows, err := r.cfg.Data.CertificateObservations(ctx, certificate)
	if err != nil {
		return nil, err
	}
	by := map[string][]hub.Observation{}
	for _, row := range rows {
		by[row.Server] = append(by[row.Server], row)
	}
	return by, nil
}

func (r *Reconciler) lookAt(ro *rollout, m *member, reports []hub.Observation, s *standing) error {
	state, detail, at, err := r.stateOf(ro, m.row.Name, reports)
	if err != nil {
		return err
	}
	switch {
	case state == serverDeployed:
		s.deployed++
		if m.wave == ro.Wave {
			s.current++
		}
		if at.After(s.last) {
			s.last = at
		}
	case state == serverFailed:
		s.failed = append(s.failed, failure{m.row.Name, detail})
	case m.row.Held || r.cfg.Now().Sub(m.row.LastSeenAt) > r.cfg.OfflineAfter:
		s.offline = append(s.offline, m.row.Name)
	default:
		s.pending = append(s.pending, m.row.Name)
	}
	return nil
}

// stateOf is what a server reported of the new issue at all its places.
func (r *Reconciler) stateOf(ro *rollout, server string, reports []hub.Observation) (state, detail string, at time.Time, err error) {
	tip, err := r.cfg.Store.ServerTip(server)
	if errors.Is(err, fs.ErrNotExist) {
		return serverPending, "", at, nil
	}
	if err != nil {
		return "", "", at, err
	}
	state = serverDeployed
	places := 0
	for i := range tip.Manifest.Deployments {
		d := &tip.Manifest.Deployments[i]
		if d.Certificate != ro.Name {
			continue
		}
		places++
		n := slices.IndexFunc(reports, func(o hub.Observation) bool { return o.Target == d.Target })
		switch {
		case d.LeafSHA256 != ro.LeafSHA256, n < 0:
			state = serverPending
		case reports[n].State == apiv1.DeploymentDeployed && reports[n].LeafSHA256 == ro.LeafSHA256:
			if reports[n].ReportedAt.After(at) {
				at = reports[n].ReportedAt
			}
		case reports[n].State == apiv1.DeploymentDeployed || reports[n].State == apiv1.DeploymentPending:
			state = serverPending
		default:
			about, err := r.isAbout(server, &reports[n], ro)
			if err != nil {
				return "", "", at, err
			}
			// What was reported before a person let the rollout go on has been seen by that person.
			if about && !reports[n].ReportedAt.Before(ro.WaveStartedAt) {
				return serverFailed, strings.ReplaceAll(string(reports[n].State), "_", " ") + ": " + reports[n].Detail, reports[n].ReportedAt, nil
			}
			state = serverPending
		}
	}
	if places == 0 {
		state = serverPending
	}
	return state, "", at, nil
}

// isAbout tells whether a report is about a state with the new issue, and not about one before.
func (r *Reconciler) isAbout(server string, report *hub.Observation, ro *rollout) (bool, error) {
	history, err := r.cfg.Store.ServerHistory(server, reportDepth)
	if err != nil {
		return false, err
	}
	for _, c := range history {
		if c.Hash.String() == report.Commit {
			return slices.ContainsFunc(c.Manifest.Deployments, func(d manifest.Deployment) bool {
				return d.Certificate == ro.Name && d.Target == report.Target && d.LeafSHA256 == ro.LeafSHA256
			}), nil
		}
	}
	return false, nil
}

// stopRollout writes down that a rollout does not go on, and tells people.
func (r *Reconciler) stopRollout(ctx context.Context, snapshot *gitstore.Snapshot, next *manifest.Rollout, level hub.AlertLevel) error {
	verb := "pause"
	if next.State == manifest.RolloutFailed {
		verb = "stop"
	}
	subject := fmt.Sprintf("%s rollout of %s in wave %d", verb, next.Name, next.Wave)
	return r.writeRollout(ctx, snapshot, next, subject, &hub.Alert{
		Kind: hub.AlertRolloutStopped, Object: next.Name, Level: level,
		Message: fmt.Sprintf("the rollout of %s stopped in wave %d: %s\ncertferry rollout show %s tells more; then resume, promote or abort it",
			next.Name, next.Wave, next.Reason, next.Name),
	})
}

func (r *Reconciler) writeRollout(ctx context.Context, snapshot *gitstore.Snapshot, next *manifest.Rollout, subject string, alert *hub.Alert) error {
	data, err := next.Encode()
	if err != nil {
		return err
	}
	return r.applyRollout(ctx, snapshot, next.Name, gitstore.Change{
		Subject: subject, Body: next.Reason, Edits: []gitrepo.Edit{{Path: manifest.RolloutPath(next.Name), Data: data}},
	}, alert)
}

// endRollout removes the document: there is nothing more to do.
func (r *Reconciler) endRollout(ctx context.Context, snapshot *gitstore.Snapshot, name, subject string) error {
	err := r.applyRollout(ctx, snapshot, name, gitstore.Change{
		Subject: subject, Edits: []gitrepo.Edit{{Path: manifest.RolloutPath(name), Delete: true}},
	}, nil)
	if err != nil {
		return err
	}
	return r.cfg.Alerts.Clear(ctx, hub.AlertRolloutStopped, name)
}

// applyRollout commits a step of a rollout. A person who acted meanwhile wins: the next pass looks again.
func (r *Reconciler) applyRollout(ctx context.Context, snapshot *gitstore.Snapshot, name string, change gitstore.Change, alert *hub.Alert) error {
	head, err := r.cfg.Data.AuditHead(ctx)
	if err != nil {
		return err
	}
	change.Expect = snapshot.Commit
	change.Trailers = []gitstore.Trailer{{Key: gitstore.TrailerCertificate, Value: name}, {Key: gitstore.TrailerAuditHead, Value: head}}
	change.BeforeRef = func(commit string) error {
		if alert != nil {
			if err := r.cfg.Alerts.Raise(ctx, *alert); err != nil {
				return err
			}
		}
		return r.cfg.Data.Audit(ctx, hub.AuditEvent{
			At: r.cfg.Now(), Actor: hubActor, Action: "advance-rollout", Object: name, Outcome: hub.OutcomeOK, Detail: "commit " + commit,
		})
	}
	commit, err := r.cfg.Store.Apply(ctx, change)
	if errors.Is(err, gitstore.ErrConflict) {
		return nil
	}
	if err == nil {
		r.cfg.Logger.InfoContext(ctx, "rollout moved", "certificate", name, "step", change.Subject, "commit", commit)
	}
	return err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// few names the first of many.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// Rollouts describes the rollouts under way, by certificate.
func (r *Reconciler) Rollouts(ctx context.Context) ([]apiv1.Rollout, error) {
	snapshot, err := r.cfg.Store.Snapshot()
	if err != nil {
		return nil, err
	}
	servers, err := r.servers(ctx)
	if err != nil {
		return nil, err
	}
	under := r.rollouts(snapshot, servers, newPlacements(snapshot))
	all := make([]apiv1.Rollout, 0, len(under))
	for _, name := range sortedKeys(under) {
		view, err := r.view(ctx, under[name])
		if err != nil {
			return nil, err
		}
		all = append(all, view)
	}
	return all, nil
}

func (r *Reconciler) view(ctx context.Context, ro *rollout) (apiv1.Rollout, error) {
	v := apiv1.Rollout{
		Certificate: ro.Name, State: string(ro.State), Reason: ro.Reason, Wave: ro.Wave, Waves: make([]apiv1.RolloutWave, len(ro.sizes)),
		LeafSHA256: ro.LeafSHA256, FromLeaf: ro.FromLeafSHA256, From: ro.From, StartedAt: ro.StartedAt, WaveStartedAt: ro.WaveStartedAt,
	}
	for i := range v.Waves {
		v.Waves[i] = apiv1.RolloutWave{Number: i + 1, Servers: []apiv1.RolloutServer{}}
	}
	reports, err := r.reports(ctx, ro.Name)
	if err != nil {
		return v, err
	}
	for i := range ro.members {
		m := &ro.members[i]
		server := apiv1.RolloutServer{Server: m.row.Name}
		if server.State, server.Detail, _, err = r.stateOf(ro, m.row.Name, reports[m.row.Name]); err != nil {
			return v, err
		}
		switch {
		case server.State != serverPending:
		case m.wave > ro.Wave:
			server.State = serverLater
		case m.row.Held || r.cfg.Now().Sub(m.row.LastSeenAt) > r.cfg.OfflineAfter:
			server.State = serverOffline
		}
		v.Waves[m.wave-1].Servers = append(v.Waves[m.wave-1].Servers, server)
	}
	return v, nil
}
