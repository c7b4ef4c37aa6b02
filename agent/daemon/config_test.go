package daemon_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent/daemon"
)

func defaults() daemon.Config {
	return daemon.Config{
		StateDir: "/var/lib/certferry", Policy: "/etc/certferry/policy.yaml", PollInterval: time.Minute,
		LogLevel: "info", LogFormat: "text",
	}
}

func TestLoadConfig(t *testing.T) {
	t.Parallel()
	everything := daemon.Config{
		StateDir: "/srv/state", Policy: "/srv/policy.yaml", CAFile: "/srv/ca.pem", PollInterval: 5 * time.Second,
		LogLevel: "debug", LogFormat: "json",
	}
	const text = "state_dir: /srv/state\npolicy: /srv/policy.yaml\nca_file: /srv/ca.pem\npoll_interval: 5s\nlog_level: debug\nlog_format: json\n"
	for name, tc := range map[string]struct {
		text string
		env  []string
		want daemon.Config
		err  string
	}{
		"empty":      {want: defaults()},
		"a comment":  {text: "# nothing\n", want: defaults()},
		"everything": {text: text, want: everything},
		"everything by environment": {env: []string{
			"CERTFERRY_AGENT_STATE_DIR=/srv/state", "CERTFERRY_AGENT_POLICY=/srv/policy.yaml", "CERTFERRY_AGENT_CA_FILE=/srv/ca.pem",
			"CERTFERRY_AGENT_POLL_INTERVAL=5s", "CERTFERRY_AGENT_LOG_LEVEL=debug", "CERTFERRY_AGENT_LOG_FORMAT=json", "HOME=/x",
		}, want: everything},
		"the environment wins": {text: "state_dir: /other\n" + strings.SplitN(text, "\n", 2)[1], env: []string{"CERTFERRY_AGENT_STATE_DIR=/srv/state"}, want: everything},
		"unknown key":          {text: "state_dir: /srv\nstat_dir: /srv\n", err: "line 2: field stat_dir not found"},
		"key twice":            {text: "log_level: info\nlog_level: debug\n", err: "line 2"},
		"no mapping":           {text: "- a\n", err: "line 1"},
		"two documents":        {text: "log_level: info\n---\nlog_level: debug\n", err: "more than one document"},
		"unknown variable":     {env: []string{"CERTFERRY_AGENT_STAT_DIR=/srv"}, err: "CERTFERRY_AGENT_STAT_DIR: unknown key"},
		"no duration":          {env: []string{"CERTFERRY_AGENT_POLL_INTERVAL=soon"}, err: "CERTFERRY_AGENT_POLL_INTERVAL: not a duration"},
		"relative state":       {text: "state_dir: state\n", err: "state_dir: must be an absolute path"},
		"relative policy":      {text: "policy: policy.yaml\n", err: "policy: must be an absolute path"},
		"too often":            {text: "poll_interval: 1ms\n", err: "poll_interval: must lie between"},
		"too seldom":           {text: "poll_interval: 48h\n", err: "poll_interval: must lie between"},
		"negative":             {text: "poll_interval: -1s\n", err: "poll_interval: must lie between"},
		"no level":             {text: "log_level: loud\n", err: "log_level: must be"},
		"no format":            {text: "log_format: xml\n", err: "log_format: must be"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "agent.yaml")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := daemon.LoadConfig(path, true, tc.env)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("load: %v, want %q", err, tc.err)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("load: %v %s", err, diff)
			}
		})
	}
}

// The environment's name of the file itself is no key of the file.
func TestConfigVariableIsNoKey(t *testing.T) {
	t.Parallel()
	got, err := daemon.LoadConfig("/nowhere/agent.yaml", false, []string{"CERTFERRY_AGENT_CONFIG=/nowhere/agent.yaml"})
	if diff := cmp.Diff(defaults(), got); err != nil || diff != "" {
		t.Errorf("load: %v %s", err, diff)
	}
}

func TestMissingConfig(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if _, err := daemon.LoadConfig(path, true, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("required: %v, want ErrNotExist", err)
	}
	got, err := daemon.LoadConfig(path, false, nil)
	if diff := cmp.Diff(defaults(), got); err != nil || diff != "" {
		t.Errorf("not required: %v %s", err, diff)
	}
}

func TestLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := daemon.Config{LogLevel: "warn", LogFormat: "json"}
	log := c.Logger(&out)
	log.Info("quiet")
	log.Warn("loud")
	var line struct {
		Msg string `json:"msg"`
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Msg != "loud" {
		t.Errorf("log %q, %v", out.String(), err)
	}
	out.Reset()
	c = daemon.Config{LogLevel: "nonsense"}
	c.Logger(&out).Info("text")
	if !strings.Contains(out.String(), "msg=text") {
		t.Errorf("log %q", out.String())
	}
}
