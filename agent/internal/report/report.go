// Package report is the agent's durable outbox: what became of a deployment is on disk before the deployment is
// called done, and goes to the hub whenever the hub can be reached, in order, each report at least once. The hub
// counts a report once by its id.
package report

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/agent/internal/atomicfile"
	"github.com/certferry/certferry/hub/apiv1"
)

// maxReports bounds the outbox: beyond it the oldest are dropped, as the newest say where the server stands.
const maxReports = 1000

// ErrRejected means that the hub will never take this report; it is dropped.
var ErrRejected = errors.New("report rejected")

// Outbox is a folder of reports that wait for the hub.
type Outbox struct{ dir string }

// Open returns the outbox in dir, made where it is absent.
func Open(dir string) (*Outbox, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open report outbox: %w", err)
	}
	return &Outbox{dir: dir}, nil
}

// Add puts r into the outbox; it is on disk when Add returns. An empty ID is filled in.
func (o *Outbox) Add(r apiv1.ReportRequest) error {
	if r.ID == "" {
		r.ID = rand.Text()
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	names, err := o.names()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%020d-%s.json", stamp(r.At, names), r.ID)
	if err := atomicfile.Write(filepath.Join(o.dir, name), data, 0o600); err != nil {
		return fmt.Errorf("store report: %w", err)
	}
	names = append(names, name)
	for len(names) > maxReports {
		if err := os.Remove(filepath.Join(o.dir, names[0])); err != nil {
			return fmt.Errorf("drop oldest report: %w", err)
		}
		names = names[1:]
	}
	return nil
}

// stamp is what the name of a report of the time at starts with: it comes after all that wait, also where the clock
// stood still or was put back.
func stamp(at time.Time, names []string) int64 {
	n := max(at.UnixNano(), 0)
	if len(names) > 0 {
		newest, _, _ := strings.Cut(names[len(names)-1], "-")
		if last, err := strconv.ParseInt(newest, 10, 64); err == nil && last < math.MaxInt64 {
			n = max(n, last+1)
		}
	}
	return n
}

// Len is how many reports wait.
func (o *Outbox) Len() (int, error) {
	names, err := o.names()
	return len(names), err
}

// Flush sends the waiting reports, oldest first, and removes each that send took or rejected (ErrRejected). It
// stops at the first other error.
func (o *Outbox) Flush(ctx context.Context, send func(context.Context, apiv1.ReportRequest) error) error {
	names, err := o.names()
	if err != nil {
		return err
	}
	var rejected []error
	for _, name := range names {
		path := filepath.Join(o.dir, name)
		data, err := os.ReadFile(path) //nolint:gosec // a file of the agent's own folder
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process of this agent sent it
		}
		if err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		var r apiv1.ReportRequest
		if err := json.Unmarshal(data, &r); err != nil {
			rejected = append(rejected, fmt.Errorf("drop unreadable report %s: %w", name, err))
		} else if err := send(ctx, r); errors.Is(err, ErrRejected) {
			rejected = append(rejected, fmt.Errorf("drop report %s: %w", r.ID, err))
		} else if err != nil {
			return fmt.Errorf("send report %s: %w", r.ID, err)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove sent report: %w", err)
		}
	}
	return errors.Join(rejected...)
}

func (o *Outbox) names() ([]string, error) {
	entries, err := os.ReadDir(o.dir) // sorted by name, which starts with the time
	if err != nil {
		return nil, fmt.Errorf("read report outbox: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
