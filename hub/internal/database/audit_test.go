package database_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/database"
)

// TestAuditEvents holds that events are chained and read as they were written.
func TestAuditEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	if head, err := w.AuditHead(ctx); err != nil || head != "" {
		t.Errorf("head of nothing: %q, %v", head, err)
	}
	w.must(w.VerifyAudit(ctx))
	first := hub.AuditEvent{
		At: start.Add(1), Actor: "alice", Action: "renew-certificate", Object: "example.com", Outcome: hub.OutcomeDenied,
		Address: "192.0.2.1", RequestID: "req-1", Detail: "it's <b>odd</b> \u2028 \"text\"\n",
	}
	w.must(w.Audit(ctx, first))
	w.must(w.Audit(ctx, event("second", "")))
	head, err := w.AuditHead(ctx)
	w.must(err)
	all, err := w.AuditEvents(ctx, 0, 10)
	w.must(err)
	if len(all) != 2 || all[0].Action != "second" || all[0].Hash != head || all[0].PrevHash != all[1].Hash || !all[0].At.Equal(start) {
		t.Fatalf("got %+v", all)
	}
	first.Seq, first.At, first.Hash = 1, start, all[1].Hash // whole milliseconds are kept
	if !reflect.DeepEqual(all[1], first) {
		t.Errorf("got %+v, want %+v", all[1], first)
	}
	older, err := w.AuditEvents(ctx, 2, 10)
	if err != nil || len(older) != 1 || older[0].Seq != 1 {
		t.Errorf("before 2: %+v, %v", older, err)
	}
	w.must(w.VerifyAudit(ctx))
}

// TestAuditTakesAnyText holds that no byte in a name keeps an act from being recorded or breaks the chain.
func TestAuditTakesAnyText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, text := range []string{"a\x00b", "a\xffb", "\xf0\x28\x8c\x28", "😀", strings.Repeat("'", 5000), "\ufffd"} {
		w.must(w.Audit(t.Context(), hub.AuditEvent{Actor: text, Action: text, Object: text, Detail: text, Address: text, RequestID: text}))
	}
	w.must(w.VerifyAudit(t.Context()))
}

// TestAuditRefusesChange tries every statement that changes history.
func TestAuditRefusesChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.Audit(t.Context(), event("act", "object")))
	for _, statement := range []string{
		"UPDATE audit SET actor = 'mallory'",
		"DELETE FROM audit",
		"INSERT OR REPLACE INTO audit SELECT seq, at, 'mallory', action, object, outcome, address, request_id, detail, prev_hash, hash FROM audit",
		"REPLACE INTO audit SELECT seq, at, 'mallory', action, object, outcome, address, request_id, detail, prev_hash, hash FROM audit",
		"UPDATE OR REPLACE audit SET seq = 2",
	} {
		if err := w.exec(statement); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	w.must(w.VerifyAudit(t.Context()))
}

// TestVerifyAuditFindsTampering takes the triggers away, as the owner of the file could.
func TestVerifyAuditFindsTampering(t *testing.T) {
	t.Parallel()
	const rows = 1005 // more than a page
	blank := newWorld(t)
	for i := range rows {
		blank.must(blank.Audit(t.Context(), event("act", fmt.Sprint(i))))
	}
	blank.must(blank.VerifyAudit(t.Context()))
	blank.must(blank.Close())
	for _, c := range []struct{ name, tamper, want string }{
		{"time", "UPDATE audit SET at = at + 1 WHERE seq = 1003", "at row 1003"},
		{"actor", "UPDATE audit SET actor = 'bob' WHERE seq = 7", "at row 7"},
		{"action", "UPDATE audit SET action = 'b' WHERE seq = 7", "at row 7"},
		{"object", "UPDATE audit SET object = 'b' WHERE seq = 7", "at row 7"},
		{"outcome", "UPDATE audit SET outcome = 'denied' WHERE seq = 7", "at row 7"},
		{"address", "UPDATE audit SET address = 'b' WHERE seq = 7", "at row 7"},
		{"request", "UPDATE audit SET request_id = 'b' WHERE seq = 7", "at row 7"},
		{"detail", "UPDATE audit SET detail = 'b' WHERE seq = 7", "at row 7"},
		{"text moved to the next column", "UPDATE audit SET action = '', object = action || object WHERE seq = 7", "at row 7"},
		{"hash", "UPDATE audit SET hash = 'b' WHERE seq = 7", "at row 7"},
		{"first deleted", "DELETE FROM audit WHERE seq = 1", "at row 1"},
		{"deleted", "DELETE FROM audit WHERE seq = 500", "at row 500"},
		{"deleted at a page's end", "DELETE FROM audit WHERE seq = 1000", "at row 1000"},
		{"deleted and closed up", "DELETE FROM audit WHERE seq = 1004; UPDATE audit SET seq = 1004 WHERE seq = 1005", "at row 1004"},
		{"reordered", "UPDATE audit SET seq = -1 WHERE seq = 7; UPDATE audit SET seq = 7 WHERE seq = 8; UPDATE audit SET seq = 8 WHERE seq = -1", "at row 7"},
		{"put before", "INSERT INTO audit SELECT 0, at, actor, action, object, outcome, address, request_id, detail, '', hash FROM audit WHERE seq = 1", "at row 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := blank.copy(t)
			w.must(w.exec("DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; DROP TRIGGER audit_no_replace;" + c.tamper))
			err := w.VerifyAudit(t.Context())
			if !errors.Is(err, database.ErrAuditBroken) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			w.must(w.Audit(t.Context(), event("act", "after"))) // history goes on, and stays broken
			w.fails(w.VerifyAudit(t.Context()), database.ErrAuditBroken)
		})
	}
}
