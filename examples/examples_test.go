// Package examples holds configurations and units to start from. This test reads each as the program would.
package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	agentdaemon "github.com/certferry/certferry/agent/daemon"
	hubdaemon "github.com/certferry/certferry/hub/daemon"
)

func TestConfigurationsAreRead(t *testing.T) {
	t.Parallel()
	if _, err := hubdaemon.LoadConfig("hub.yaml", true, nil); err != nil {
		t.Errorf("hub.yaml: %v", err)
	}
	agent, err := agentdaemon.LoadConfig("agent.yaml", true, nil)
	if err != nil || agent.Policy != "/etc/certferry/policy.yaml" {
		t.Errorf("agent.yaml: %+v %v", agent, err)
	}
}

func TestUnitsStartWhatExists(t *testing.T) {
	t.Parallel()
	units, err := filepath.Glob("systemd/*.service")
	if err != nil || len(units) != 3 {
		t.Fatalf("units %v, %v", units, err)
	}
	start := regexp.MustCompile(`(?m)^ExecStart=/usr/bin/(certferry-(?:hub|agent)) (serve|run|recover)$`)
	for _, unit := range units {
		data, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		match := start.FindStringSubmatch(string(data))
		if match == nil || !strings.Contains(unit, match[1]) {
			t.Errorf("%s starts %v", unit, match)
			continue
		}
		if _, err := os.Stat(filepath.Join("..", "cmd", match[1])); err != nil {
			t.Errorf("%s: %v", unit, err)
		}
	}
}

// TestCredentialsAreOnesThatTheHubReads: what the drop-in loads is named by a key of the configuration.
func TestCredentialsAreOnesThatTheHubReads(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("systemd/certferry-hub.service.d/credentials.conf")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, match := range regexp.MustCompile(`(?m)^Environment=CERTFERRY_HUB_([A-Z_]+)=%d/([a-z-]+)$`).FindAllStringSubmatch(string(data), -1) {
		named++
		if !slices.Contains(hubdaemon.Keys(), strings.ToLower(match[1])) {
			t.Errorf("the hub has no key %s", match[1])
		}
		if !strings.Contains(string(data), "\nLoadCredentialEncrypted="+match[2]+":/") {
			t.Errorf("no credential %s is loaded", match[2])
		}
	}
	if named == 0 {
		t.Error("no credential is named")
	}
}
