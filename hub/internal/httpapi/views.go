// Views: what people see, put together from what Git says should be and what the database says was seen.

package httpapi

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/issuer"
)

const (
	// historyDepth is how far back a history is shown.
	historyDepth = 1000
	// MissedHeartbeats make a server offline.
	MissedHeartbeats = 3
)

// place is where a deployment stands; a server's policy gives each target one deployer.
type place struct{ server, certificate, target string }

// view reads one snapshot for one request, and remembers what it looked up: listings ask for the same again.
type view struct {
	s         *server
	snap      *gitstore.Snapshot
	tips      map[string]*gitstore.Tip
	selectors map[string]*manifest.Selector
	// proposals are the serials of open ones by certificate, read when first asked for.
	proposals map[string]string
}

func (s *server) newView() (*view, error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	return &view{s: s, snap: snap, tips: map[string]*gitstore.Tip{}, selectors: map[string]*manifest.Selector{}}, nil
}

func (v *view) tip(name string) (*gitstore.Tip, error) {
	if tip, ok := v.tips[name]; ok {
		return tip, nil
	}
	tip, err := v.s.tip(name)
	if err == nil {
		v.tips[name] = tip
	}
	return tip, err
}

// matches says whether a selector covers labels; one that cannot be read covers nothing.
func (v *view) matches(text string, labels map[string]string) bool {
	selector, ok := v.selectors[text]
	if !ok {
		if parsed, err := manifest.ParseSelector(text); err == nil && text != "" {
			selector = &parsed
		}
		v.selectors[text] = selector
	}
	return selector != nil && selector.Matches(labels)
}

// tip answers a server's branch, nil before its first commit.
func (s *server) tip(name string) (*gitstore.Tip, error) {
	tip, err := s.cfg.Fleet.ServerTip(name)
	if err != nil {
		return nil, absentIsEmpty(err)
	}
	return tip, nil
}

func absentIsEmpty(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, hub.ErrNotFound) {
		return nil
	}
	return err
}

// named gives what does not exist a sentence.
func named(err error, message string) error {
	if errors.Is(err, hub.ErrNotFound) {
		return &hub.Error{Class: hub.ErrNotFound, Message: message}
	}
	return err
}

func (s *server) online(row hub.Server) bool {
	return !row.LastSeenAt.IsZero() && s.cfg.Now().Sub(row.LastSeenAt) <= MissedHeartbeats*s.cfg.HeartbeatInterval
}

func (v *view) server(ctx context.Context, row hub.Server) (apiv1.Server, error) {
	out := apiv1.Server{
		Name: row.Name, State: string(row.State), Fingerprint: row.Fingerprint, Labels: map[string]string{},
		Facts: row.Facts, Online: v.s.online(row), LastSeenAt: stamp(row.LastSeenAt), Status: row.Status, Message: row.Message,
		Held: row.Held, Commit: row.Commit, Generation: row.Generation, CreatedAt: row.CreatedAt.UTC(),
	}
	if wish := v.snap.Servers[row.Name]; wish != nil {
		if wish.Labels != nil {
			out.Labels = wish.Labels
		}
		if h := wish.Hold; h != nil {
			out.Hold = &apiv1.Hold{Commit: h.Commit, Reason: h.Reason, By: h.By, Since: h.Since.UTC()}
		}
	}
	var err error
	if _, out.NextFingerprint, err = v.s.rotation(ctx, row.Name); err != nil {
		return apiv1.Server{}, err
	}
	tip, err := v.tip(row.Name)
	if err != nil {
		return apiv1.Server{}, err
	}
	if tip != nil {
		out.WantCommit, out.WantGeneration = tip.Commit, tip.Manifest.Generation
	}
	seen, err := v.s.cfg.Data.ServerObservations(ctx, row.Name)
	if err != nil {
		return apiv1.Server{}, err
	}
	var wanted []apiv1.Deployment
	for _, wish := range v.snap.Certificates {
		for _, p := range wish.Deployments {
			if v.covers(p, row.Name, out.Labels) && !has(wanted, wish.Name, p.Target) {
				wanted = append(wanted, v.wanted(tip, row.Name, wish.Name, p))
			}
		}
	}
	out.Deployments = withSeen(withTip(wanted, row.Name, tip), seen)
	return out, nil
}

// covers says whether a placement is on a server.
func (v *view) covers(p manifest.Placement, server string, labels map[string]string) bool {
	if p.Server != "" {
		return p.Server == server
	}
	return v.matches(p.Selector, labels)
}

// wanted is what should stand at a place: what the server's branch says where it says something, else
// what was issued last.
func (v *view) wanted(tip *gitstore.Tip, server, certificate string, p manifest.Placement) apiv1.Deployment {
	d := apiv1.Deployment{
		Server: server, Certificate: certificate, Deployer: p.Deployer, Target: p.Target, State: apiv1.DeploymentPending,
	}
	if issued := v.snap.Issued[certificate]; issued != nil {
		d.WantLeafSHA256 = issued.LeafSHA256
	}
	if tip != nil {
		for _, t := range tip.Manifest.Deployments {
			if t.Certificate == certificate && t.Target == p.Target {
				d.WantLeafSHA256 = t.LeafSHA256
			}
		}
	}
	return d
}

// withTip adds what the branch holds beside the present wishes: a server on hold keeps what it had.
func withTip(wanted []apiv1.Deployment, server string, tip *gitstore.Tip) []apiv1.Deployment {
	if tip == nil {
		return wanted
	}
	for _, t := range tip.Manifest.Deployments {
		if !has(wanted, t.Certificate, t.Target) {
			wanted = append(wanted, apiv1.Deployment{
				Server: server, Certificate: t.Certificate, Deployer: t.Deployer, Target: t.Target,
				WantLeafSHA256: t.LeafSHA256, State: apiv1.DeploymentPending,
			})
		}
	}
	return wanted
}

func has(deployments []apiv1.Deployment, certificate, target string) bool {
	return slices.ContainsFunc(deployments, func(d apiv1.Deployment) bool {
		return d.Certificate == certificate && d.Target == target
	})
}

// withSeen lays reports over wishes and sorts the outcome.
func withSeen(wanted []apiv1.Deployment, seen []hub.Observation) []apiv1.Deployment {
	at := make(map[place]hub.Observation, len(seen))
	for _, o := range seen {
		at[place{o.Server, o.Certificate, o.Target}] = o
	}
	out := make([]apiv1.Deployment, 0, len(wanted))
	for _, d := range wanted {
		if o, ok := at[place{d.Server, d.Certificate, d.Target}]; ok {
			d = observed(d, o)
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b apiv1.Deployment) int {
		return cmp.Or(strings.Compare(a.Certificate, b.Certificate), strings.Compare(a.Server, b.Server), strings.Compare(a.Target, b.Target))
	})
	return out
}

// observed adds a report to a wish. A success with another leaf than the wanted one is of an earlier commit: the
// wish is pending still.
func observed(d apiv1.Deployment, o hub.Observation) apiv1.Deployment {
	d.State, d.Phase, d.LeafSHA256, d.Detail, d.Commit = o.State, o.Phase, o.LeafSHA256, o.Detail, o.Commit
	d.ReportedAt = stamp(o.ReportedAt)
	if o.State == apiv1.DeploymentDeployed && o.LeafSHA256 != d.WantLeafSHA256 {
		d.State = apiv1.DeploymentPending
	}
	return d
}

func (v *view) certificate(ctx context.Context, wish *manifest.Certificate) (apiv1.Certificate, error) {
	out := apiv1.Certificate{
		CertificateSpec: viewSpec(wish), Paused: wish.Renewal.Paused, PausedReason: wish.Renewal.PausedReason,
	}
	issued := v.snap.Issued[wish.Name]
	if issued != nil {
		out.Issued = &apiv1.Issued{
			Serial: issued.Serial, Issuer: issued.Issuer, NotBefore: issued.NotBefore.UTC(), NotAfter: issued.NotAfter.UTC(),
			LeafSHA256: issued.LeafSHA256, SPKISHA256: issued.SPKISHA256, KeyServer: issued.KeyServer,
		}
		out.RenewAt = stamp(v.s.renewAt(wish, issued))
	}
	job, err := v.s.latestJob(ctx, wish.Name)
	if err != nil {
		return apiv1.Certificate{}, err
	}
	var order apiv1.JobState
	if job != nil {
		j := viewJob(*job)
		out.Job, order = &j, job.State
	}
	out.State = v.s.stateOf(wish, issued, order)
	if out.Proposal, err = v.proposal(wish.Name); err != nil {
		return apiv1.Certificate{}, err
	}
	seen, err := v.s.cfg.Data.CertificateObservations(ctx, wish.Name)
	if err != nil {
		return apiv1.Certificate{}, err
	}
	placed, err := v.placements(wish)
	if err != nil {
		return apiv1.Certificate{}, err
	}
	out.Placed = withSeen(placed, seen)
	return out, nil
}

// proposal is the serial of the certificate's issue that waits for review, empty for none.
func (v *view) proposal(certificate string) (string, error) {
	if v.proposals == nil {
		all, err := v.s.cfg.Proposals.Proposals()
		if err != nil {
			return "", err
		}
		v.proposals = map[string]string{}
		for _, p := range all {
			v.proposals[p.Certificate] = p.Serial
		}
	}
	return v.proposals[certificate], nil
}

// placements are the places of a certificate today.
func (v *view) placements(wish *manifest.Certificate) ([]apiv1.Deployment, error) {
	var out []apiv1.Deployment
	taken := map[place]bool{}
	for _, p := range wish.Deployments {
		for _, server := range v.serversOf(p) {
			at := place{server, wish.Name, p.Target}
			if taken[at] {
				continue
			}
			taken[at] = true
			tip, err := v.tip(server)
			if err != nil {
				return nil, err
			}
			out = append(out, v.wanted(tip, server, wish.Name, p))
		}
	}
	return out, nil
}

// serversOf lists the servers that a placement covers.
func (v *view) serversOf(p manifest.Placement) []string {
	if p.Server != "" {
		return []string{p.Server}
	}
	var names []string
	for name, server := range v.snap.Servers {
		if v.matches(p.Selector, server.Labels) {
			names = append(names, name)
		}
	}
	return names
}

func viewSpec(wish *manifest.Certificate) apiv1.CertificateSpec {
	v := apiv1.CertificateSpec{
		Name: wish.Name, Names: append([]string{}, wish.Names...), KeyType: wish.KeyType, SecondKeyType: wish.SecondKeyType,
		KeyCustody: wish.KeyCustody, Issuer: wish.Issuer, FallbackIssuer: wish.FallbackIssuer,
		Profile: wish.Profile, PreferredChain: wish.PreferredChain,
		DaysBeforeExpiry: wish.Renewal.DaysBeforeExpiry, KeepKey: wish.Renewal.Key == "keep",
		Review: wish.Review,
	}
	for _, wave := range wish.Waves {
		v.Waves = append(v.Waves, wave.String())
	}
	if wish.Challenge != nil {
		c := apiv1.Challenge(*wish.Challenge)
		v.Challenge = &c
	}
	for _, c := range wish.Challenges {
		v.Challenges = append(v.Challenges, apiv1.NamedChallenge{Challenge: apiv1.Challenge(c.Challenge), Names: c.Names})
	}
	for _, p := range wish.Deployments {
		v.Deployments = append(v.Deployments, apiv1.Placement(p))
	}
	return v
}

func (s *server) latestJob(ctx context.Context, certificate string) (*hub.Job, error) {
	job, err := s.cfg.Data.LatestJob(ctx, certificate)
	if errors.Is(err, hub.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &job, nil
}

func (s *server) renewAt(wish *manifest.Certificate, issued *manifest.IssuedCertificate) time.Time {
	if s.cfg.RenewAt == nil {
		return time.Time{}
	}
	return s.cfg.RenewAt(wish, issued)
}

// stateOf is the worst thing that a person should know of a certificate; order is the state of the newest job that
// issues it, empty for none.
func (s *server) stateOf(wish *manifest.Certificate, issued *manifest.IssuedCertificate, order apiv1.JobState) apiv1.CertificateState {
	now := s.cfg.Now()
	switch {
	case issued != nil && !now.Before(issued.NotAfter):
		return apiv1.CertificateExpired
	case issued != nil && issued.Revoked != nil:
		return apiv1.CertificateRevoked
	case order == apiv1.JobFailed:
		return apiv1.CertificateFailed
	case issued == nil:
		return apiv1.CertificatePending
	case order.Active():
		return apiv1.CertificateRenewing
	case wish.Renewal.Paused:
		return apiv1.CertificatePaused
	}
	if due := s.renewAt(wish, issued); !due.IsZero() && !now.Before(due) {
		return apiv1.CertificateExpiring
	}
	return apiv1.CertificateValid
}

func viewJob(j hub.Job) apiv1.Job {
	v := apiv1.Job{
		ID: j.ID, Kind: j.Kind, Certificate: j.Certificate, Issuer: j.Issuer, Actor: j.Actor, Reason: j.Reason,
		State: j.State, Phase: j.Phase, Attempts: j.Attempts, Error: j.Error, ErrorClass: j.ErrorClass,
		NextStep: nextStep(j), CreatedAt: j.CreatedAt.UTC(), UpdatedAt: j.UpdatedAt.UTC(),
	}
	if j.State == apiv1.JobWaiting {
		v.RetryAt = stamp(j.NotBefore)
	}
	return v
}

// nextStep is what helps a job that failed or waits, empty where nothing is to be done.
func nextStep(j hub.Job) string {
	if j.ErrorClass == "" || j.State == apiv1.JobDone || j.State == apiv1.JobCancelled {
		return ""
	}
	return issuer.NextStep(issuer.Class(j.ErrorClass))
}

func viewCommit(c *gitrepo.Commit) apiv1.Commit {
	subject, _, _ := strings.Cut(c.Message, "\n")
	return apiv1.Commit{
		Hash: c.Hash.String(), Subject: oneLine(subject), Author: oneLine(c.Author.Name), CommittedAt: c.Committer.When.UTC(),
		Trailers: trailers(c.Message),
	}
}

// trailers reads the last paragraph of a message where it is of lines "Key: Value".
func trailers(message string) map[string]string {
	_, last, ok := cutLast(strings.TrimRight(message, "\n"), "\n\n")
	if !ok {
		return nil
	}
	out := map[string]string{}
	for line := range strings.SplitSeq(last, "\n") {
		key, value, ok := strings.Cut(line, ": ")
		if !ok || strings.ContainsAny(key, " \t") {
			return nil
		}
		out[key] = oneLine(value)
	}
	return out
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// historyPage cuts one page out of a history; after is the hash of the last commit of the page before.
func historyPage[C any](commits []C, in PageInput, view func(C) apiv1.Commit) (*listOutput[apiv1.Commit], error) {
	from := 0
	if in.After != "" {
		from = 1 + slices.IndexFunc(commits, func(c C) bool { return view(c).Hash == in.After })
		if from == 0 {
			return nil, invalid("query.after", "give next of the page before")
		}
	}
	to := min(from+in.Limit, len(commits))
	out := &listOutput[apiv1.Commit]{Body: apiv1.List[apiv1.Commit]{Items: make([]apiv1.Commit, 0, to-from)}}
	for _, c := range commits[from:to] {
		out.Body.Items = append(out.Body.Items, view(c))
	}
	if to < len(commits) && to > from {
		out.Body.Next = out.Body.Items[to-from-1].Hash
	}
	return out, nil
}

// depth is how much of a history must be read for a page.
func depth(in PageInput) int {
	if in.After == "" {
		return in.Limit + 1
	}
	return historyDepth
}

// stamp leaves out a time that never was.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
