// What agents send: registration, heartbeats, reports. A registration is authorized by its join token; the rest by
// the server's credential, and concerns that server alone.

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
)

func (s *server) addAgents() {
	add(s, operation{
		id: "register-server", method: http.MethodPost, path: "/servers/register", tag: "agents",
		summary: "Enrol a server with its join token", status: http.StatusCreated,
	}, s.registerServer)
	add(s, operation{
		id: "heartbeat", method: http.MethodPost, path: "/servers/heartbeat", tag: "agents",
		summary: "Tell that the agent lives and what it holds, and wait for news", timeout: heartbeatTimeout,
	}, s.heartbeat)
	add(s, operation{
		id: "report", method: http.MethodPost, path: "/certificates/sync", tag: "agents",
		summary: "Report what became of a commit; the same report sent twice counts once", status: http.StatusNoContent,
	}, s.report)
}

func (s *server) registerServer(ctx context.Context, c *call, in *input[apiv1.RegisterRequest]) (*output[apiv1.Registration], error) {
	req := in.Body
	if err := manifest.ValidName(req.Name); err != nil {
		return nil, invalid("body.name", err.Error())
	}
	if req.RootFingerprint != "" && req.RootFingerprint != s.cfg.RootFingerprint {
		return nil, invalid("body.root_fingerprint", "this hub has another root key: check the fingerprint; the join token is still good")
	}
	key, err := seal.ParsePublicKey([]byte(req.PublicKey))
	if err != nil {
		return nil, invalid("body.public_key", "this is not an ASCII-armored OpenPGP public key as certferry-agent makes it")
	}
	hash := auth.HashToken(req.Token)
	token, err := s.joinToken(ctx, hash, req.Name)
	if err != nil {
		return nil, err
	}
	// From here on the caller holds a token for this name: the audit history may name it.
	c.principal = hub.Principal{Kind: hub.Agent, Name: req.Name}
	// Intent first: it may stand without a server, but an approved server without intent would get nothing.
	if err := s.cfg.Intent.EnsureServer(ctx, req.Name, token.Labels); err != nil {
		return nil, err
	}
	credential, credentialHash := auth.NewCredential()
	row := hub.Server{
		Name: req.Name, State: hub.ServerPending, Fingerprint: key.Fingerprint(), PublicKey: req.PublicKey,
		CredentialHash: credentialHash, Facts: cleanFacts(req.Facts), CreatedAt: s.cfg.Now(),
	}
	if token.PreApproved {
		row.State = hub.ServerApproved
	}
	event := s.event(c, req.Name, hub.OutcomeOK, "key "+row.Fingerprint+", "+string(row.State))
	if err := s.cfg.Data.InsertServer(ctx, row, hash, event); err != nil {
		return nil, err
	}
	s.cfg.changed()
	return &output[apiv1.Registration]{Body: apiv1.Registration{
		Server: row.Name, Fingerprint: row.Fingerprint, Credential: credential, State: string(row.State),
		RepoID: s.cfg.RepoID, GitURL: s.cfg.PublicURL + GitPath, RootKey: s.cfg.RootKey,
	}}, nil
}

// joinToken answers the token's row if it is good for a server of this name now.
func (s *server) joinToken(ctx context.Context, hash, name string) (hub.JoinToken, error) {
	token, err := s.cfg.Data.JoinToken(ctx, hash)
	var reason string
	switch {
	case errors.Is(err, hub.ErrNotFound):
		reason = "is not known"
	case err != nil:
		return hub.JoinToken{}, err
	case !token.UsedAt.IsZero():
		reason = "was used already"
	case !s.cfg.Now().Before(token.ExpiresAt):
		reason = "has expired"
	case token.Server != name:
		reason = "is for a server of another name"
	default:
		return token, nil
	}
	return hub.JoinToken{}, &hub.Error{
		Class:   hub.ErrUnauthenticated,
		Message: "the join token " + reason + ": have an operator make a new one for this server's name",
	}
}

func (s *server) heartbeat(ctx context.Context, c *call, in *input[apiv1.HeartbeatRequest]) (*output[apiv1.HeartbeatReply], error) {
	req := in.Body
	if req.Commit != "" && !commitHash.MatchString(req.Commit) {
		return nil, invalid("body.commit", "a commit has 40 lower-case hex digits")
	}
	row, err := s.cfg.Data.Server(ctx, c.principal.Name)
	if err != nil {
		return nil, err
	}
	row.LastSeenAt = s.cfg.Now()
	row.Counter, row.Commit, row.Generation = req.Counter, req.Commit, req.Generation
	row.Held, row.Status, row.Message = req.Held, req.Status, oneLine(req.Message)
	if req.Facts != nil {
		row.Facts = cleanFacts(*req.Facts)
	}
	if err := s.cfg.Data.RecordHeartbeat(ctx, row); err != nil {
		return nil, err
	}
	s.takeFound(ctx, c, req.Found)
	reply, err := s.news(ctx, row, req)
	if err != nil {
		return nil, err
	}
	if reply.Generation > 0 {
		s.watchFreeze(ctx, c, req, reply.Generation)
	}
	return &output[apiv1.HeartbeatReply]{Body: reply}, nil
}

// news is the answer to a heartbeat, at once where it holds something to do or the agent does not wait.
func (s *server) news(ctx context.Context, row hub.Server, req apiv1.HeartbeatRequest) (apiv1.HeartbeatReply, error) {
	if !req.Wait || s.cfg.Bell == nil {
		return s.standing(ctx, row)
	}
	rung := s.cfg.Bell.listen(row.Name) // before the look: what comes in between is not missed
	defer s.cfg.Bell.leave(row.Name, rung)
	reply, err := s.standing(ctx, row)
	if err != nil || reply.Generation > req.NewestGeneration || reply.RotateKey || len(reply.CertificateRequests) > 0 {
		return reply, err
	}
	hold(ctx, rung, min(s.cfg.HeartbeatInterval, longestHold))
	if row, err = s.cfg.Data.Server(ctx, row.Name); err != nil {
		return reply, err
	}
	if reply, err = s.standing(ctx, row); err == nil {
		reply.IntervalSeconds = 1 // the interval has passed by waiting
	}
	return reply, err
}

// standing is what a server shall do and hold now.
func (s *server) standing(ctx context.Context, row hub.Server) (reply apiv1.HeartbeatReply, err error) {
	reply = apiv1.HeartbeatReply{State: string(row.State), IntervalSeconds: int(s.cfg.HeartbeatInterval / time.Second)}
	if reply.RotateKey, _, err = s.rotation(ctx, row.Name); err != nil {
		return reply, err
	}
	if reply.CertificateRequests, err = s.wanted(ctx, row); err != nil {
		return reply, err
	}
	tip, err := s.tip(row.Name)
	if err == nil && tip != nil {
		reply.Commit, reply.Generation = tip.Commit, tip.Manifest.Generation
	}
	return reply, err
}

var (
	commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)
	leafHash   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	reportID   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
)

func (s *server) report(ctx context.Context, c *call, in *input[apiv1.ReportRequest]) (*none, error) {
	req := in.Body
	if err := checkReport(req); err != nil {
		return nil, err
	}
	rows, err := s.observations(c.principal.Name, req)
	if err != nil {
		return nil, err
	}
	news, err := s.cfg.Data.RecordReport(ctx, c.principal.Name, req.ID, rows)
	if err != nil {
		return nil, err
	}
	if news {
		s.cfg.changed() // a rollout may go on
		return nil, s.alarm(ctx, c.principal.Name, req)
	}
	return nil, nil
}

// alarm tells people of a report that says that something went wrong, and that it is well again.
func (s *server) alarm(ctx context.Context, server string, req apiv1.ReportRequest) error {
	if req.Error != "" {
		return s.cfg.Data.Raise(ctx, hub.Alert{
			Kind: hub.AlertStateRefused, Object: server, Level: hub.AlertCritical,
			Message: "server " + server + " refuses what its Git remote sends, and goes on serving what it has: " + oneLine(cut(req.Error, 1000)),
		})
	}
	if err := s.cfg.Data.Clear(ctx, hub.AlertStateRefused, server); err != nil {
		return err
	}
	for _, d := range req.Deployments {
		if d.State != apiv1.DeploymentDeployed {
			first, _, _ := strings.Cut(d.Detail, "\n")
			return s.cfg.Data.Raise(ctx, hub.Alert{
				Kind: hub.AlertDeploymentFailed, Object: server, Level: hub.AlertWarning,
				Message: "certificate " + d.Certificate + " on server " + server + " at " + d.Target + ": " +
					strings.ReplaceAll(string(d.State), "_", " ") + " (" + string(d.Phase) + "): " + oneLine(cut(first, 500)),
			})
		}
	}
	return s.cfg.Data.Clear(ctx, hub.AlertDeploymentFailed, server)
}

// checkReport checks what a schema cannot say.
func checkReport(req apiv1.ReportRequest) error {
	var faults []hub.Fault
	fault := func(place, message string) {
		if len(faults) < maxFaults {
			faults = append(faults, hub.Fault{Location: place, Message: message})
		}
	}
	if !reportID.MatchString(req.ID) {
		fault("body.id", "use letters, digits, dot, dash and underscore")
	}
	if req.Commit != "" && !commitHash.MatchString(req.Commit) {
		fault("body.commit", "a commit has 40 lower-case hex digits")
	}
	for i, d := range req.Deployments {
		place := fmt.Sprintf("body.deployments[%d].", i)
		if err := manifest.ValidName(d.Certificate); err != nil {
			fault(place+"certificate", err.Error())
		}
		if err := manifest.ValidName(d.Target); err != nil {
			fault(place+"target", err.Error())
		}
		if d.LeafSHA256 != "" && !leafHash.MatchString(d.LeafSHA256) {
			fault(place+"leaf_sha256", "a hash has 64 lower-case hex digits")
		}
	}
	if faults == nil {
		return nil
	}
	return &hub.Error{
		Class: hub.ErrInvalid, Message: sentences[http.StatusUnprocessableEntity], Faults: faults,
	}
}

// observations are the rows that a report becomes. Where a commit was refused as a whole, it says so for each
// deployment that the server should have.
func (s *server) observations(server string, req apiv1.ReportRequest) ([]hub.Observation, error) {
	deployments := req.Deployments
	if len(deployments) == 0 && req.Error != "" {
		tip, err := s.tip(server)
		if err != nil {
			return nil, err
		}
		if tip != nil {
			for _, d := range tip.Manifest.Deployments {
				deployments = append(deployments, apiv1.DeploymentReport{
					Certificate: d.Certificate, Target: d.Target, State: apiv1.DeploymentRefused, Phase: apiv1.PhaseVerify,
					Detail: req.Error,
				})
			}
		}
	}
	// A report may have waited in the agent's outbox; its clock may be wrong, but never ahead of ours.
	at := s.cfg.Now()
	if !req.At.IsZero() && req.At.Before(at) {
		at = req.At
	}
	rows := make([]hub.Observation, 0, len(deployments))
	for _, d := range deployments {
		rows = append(rows, hub.Observation{
			Server: server, Certificate: d.Certificate, Target: d.Target, Commit: req.Commit, Generation: req.Generation,
			State: d.State, Phase: d.Phase, LeafSHA256: d.LeafSHA256, Detail: lines(d.Detail), ReportedAt: at,
		})
	}
	return rows, nil
}

// cleanFacts keeps what a machine says of itself from reaching a terminal as more than text.
func cleanFacts(f apiv1.Facts) apiv1.Facts {
	for _, p := range []*string{&f.Hostname, &f.OS, &f.Kernel, &f.Arch, &f.MachineIDHash, &f.BootID, &f.AgentVersion} {
		*p = oneLine(*p)
	}
	clean := make([]string, 0, len(f.Addresses))
	for _, a := range f.Addresses {
		clean = append(clean, oneLine(cut(a, 64)))
	}
	f.Addresses = clean
	return f
}
