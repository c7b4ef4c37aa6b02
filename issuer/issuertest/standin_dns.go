// This file is what the stand-in knows of DNS hooks: the driver's own hook, and behind it the one of WriteDNSHook. The
// shell is left out; what the driver and its hook share as files is the same.

package issuertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// addRecord is dns_certferry_add.
func (s *standIn) addRecord(ctx context.Context, record, value string) error {
	stop := func(why string) error {
		fmt.Fprintf(os.Stderr, "%s%s\n%sError adding TXT record to domain: %s\n", stamp(), why, stamp(), record)
		_ = s.note("dns.fail", record)
		return errStopped
	}
	if !s.mapped(record) {
		return stop("no hook is known for this record")
	}
	if err := s.note("dns.added", record+" "+value); err != nil {
		return stop(err.Error())
	}
	if os.Getenv("PEBBLETEST_TOKEN") == "wrong" { //nolint:forbidigo // as a hook does
		return stop("the provider refuses the credential")
	}
	if err := changeRecord(ctx, "/set-txt", record, value); err != nil {
		return stop(err.Error())
	}
	s.undo = append(s.undo, func() error { return s.removeRecord(context.WithoutCancel(ctx), record, value) })
	if err := s.note("dns.done", record+" "+value); err != nil {
		return err
	}
	for record == os.Getenv("CERTFERRY_LAST") { //nolint:forbidigo // as the hook does
		if _, err := os.Stat(filepath.Join(s.run, "dns.seen")); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// removeRecord is dns_certferry_rm.
func (s *standIn) removeRecord(ctx context.Context, record, value string) error {
	if err := changeRecord(ctx, "/clear-txt", record, value); err != nil {
		return err
	}
	return s.note("dns.removed", record+" "+value)
}

// changeRecords is records.sh.
func (s *standIn) changeRecords() int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	data, err := os.ReadFile(filepath.Join(s.run, "dns.todo"))
	if err != nil {
		return 1
	}
	code := 0
	for line := range strings.Lines(string(data)) {
		record, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if os.Getenv("CERTFERRY_DO") == "add" { //nolint:forbidigo // as records.sh does
			err = s.addRecord(ctx, record, value)
		} else {
			err = s.removeRecord(ctx, record, value)
		}
		if err != nil {
			code = 1
		}
	}
	return code
}

// mapped says whether the driver named a hook that is there.
func (s *standIn) mapped(record string) bool {
	data, err := os.ReadFile(filepath.Join(s.run, "dns.map"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == record && f[1] == HookName {
			_, err := os.Stat(f[2])
			return err == nil
		}
	}
	return false
}

// note adds a line to a file of the home.
func (s *standIn) note(file, line string) error {
	f, err := os.OpenFile(filepath.Join(s.run, file), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // the run's own home
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteString(line + "\n")
	return err
}

// changeRecord asks the test's DNS server, as the hook of WriteDNSHook does.
func changeRecord(ctx context.Context, path, record, value string) error {
	body, err := json.Marshal(map[string]string{"Host": record + ".", "Value": value})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("PEBBLETEST_URL")+path, bytes.NewReader(body)) //nolint:forbidigo,gosec // as a hook does
	if err != nil {
		return err
	}
	answer, err := (&http.Client{}).Do(req) //nolint:gosec // the test's own server
	if err != nil {
		return err
	}
	return answer.Body.Close()
}
