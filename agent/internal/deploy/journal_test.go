package deploy

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/internal/atomicfile"
	"github.com/certferry/certferry/agent/internal/probe"
)

const golden = "testdata/journal.golden.json"

func sample() *journal {
	hash := strings.Repeat("0123456789abcdef", 4)
	return &journal{
		Format: 1, Step: stepCommitting, StartedAt: time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC),
		BrokenBefore: true, ReloadTried: true,
		Items: []journalEntry{{
			Certificate: "example.com", Deployer: "nginx", Target: "web", Names: []string{"example.com", "*.example.com"}, LeafSHA256: hash,
			Served: []served{{Endpoint: probe.Endpoint{Address: "127.0.0.1:443", ServerName: "example.com"}, LeafSHA256: hash}},
			Files: []change{
				{
					Path: "/etc/nginx/ssl/example.com.key", Temp: "/etc/nginx/ssl/.certferry-ABC-1", New: hash, Attr: atomicfile.Attributes{Mode: 0o640, GID: 33},
					Old: hash, OldAttr: atomicfile.Attributes{Mode: 0o640, GID: 33, Xattrs: map[string][]byte{"user.note": []byte("x")}}, Backup: "file-1",
				},
				{Path: "/etc/nginx/ssl/example.com.pem", Temp: "/etc/nginx/ssl/.certferry-ABC-2", New: hash, Attr: atomicfile.Attributes{Mode: 0o644}},
			},
		}},
	}
}

// TestJournalFormat: a journal that an earlier version wrote is read by this one.
func TestJournalFormat(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sample().encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	j, err := decodeJournal(want)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := j.encode(); err != nil || !bytes.Equal(again, want) {
		t.Errorf("read and written again:\n%s, %v", again, err)
	}
}

// TestJournalRefuses what this program did not write.
func TestJournalRefuses(t *testing.T) {
	t.Parallel()
	good, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"format":         {`"format": 1`, `"format": 2`},
		"step":           {`"committing"`, `"flying"`},
		"unknown key":    {`"format": 1`, `"format": 1, "command": "x"`},
		"relative path":  {`"/etc/nginx/ssl/example.com.key"`, `"etc/passwd"`},
		"dots":           {`"/etc/nginx/ssl/example.com.key"`, `"/etc/nginx/ssl/../../passwd"`},
		"temp elsewhere": {`"/etc/nginx/ssl/.certferry-ABC-1"`, `"/etc/passwd"`},
		"temp is path":   {`"/etc/nginx/ssl/.certferry-ABC-1"`, `"/etc/nginx/ssl/example.com.key"`},
		"short hash":     {`"new_sha256": "0123`, `"new_sha256": "`},
		"no backup":      {`"backup": "file-1"`, `"backup": ""`},
		"backup outside": {`"backup": "file-1"`, `"backup": "../file-1"`},
		"backup dots":    {`"backup": "file-1"`, `"backup": ".."`},
	} {
		bad := strings.Replace(string(good), change[0], change[1], 1)
		if bad == string(good) {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := decodeJournal([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	for name, bad := range map[string]string{"empty": "", "rest": string(good) + "{}", "huge": strings.Repeat(" ", journalLimit+1)} {
		if _, err := decodeJournal([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// FuzzDecodeJournal looks for a journal that is taken but cannot be written.
func FuzzDecodeJournal(f *testing.F) {
	good, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":1,"step":"prepared","items":[{"files":[{"path":"/a/b","temp":"/a/.c","new_sha256":""}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := decodeJournal(data)
		if err != nil {
			return
		}
		again, err := j.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeJournal(again); err != nil {
			t.Errorf("what is written cannot be read: %v", err)
		}
	})
}
