package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
)

// staged is a hub whose new keys wait in keys/install.
func staged(t *testing.T, stolen bool) (cfg Config, former *keys, ring *manifest.Keyring) {
	t.Helper()
	cfg, _ = initialised(t)
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	former, err := loadKeys(&cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	root, err := findRoot(&cfg, RotateOptions{}, former)
	if err != nil || root == nil {
		t.Fatalf("root key: %v", err)
	}
	if ring, err = stage(&cfg, former, stolen, time.Now()); err == nil {
		_, err = signFile(filepath.Join(cfg.paths().next(), manifest.KeyringFile), root, time.Now())
	}
	if err == nil {
		err = os.Rename(cfg.paths().next(), cfg.paths().install())
	}
	if err != nil {
		t.Fatal(err)
	}
	return cfg, former, ring
}

// TestInstallSurvivesACrash stops before each step, and once more in the repeat, as a kill or a power cut would.
func TestInstallSurvivesACrash(t *testing.T) {
	t.Parallel()
	const steps = 8
	for first := range steps {
		t.Run(string(rune('0'+first)), func(t *testing.T) {
			t.Parallel()
			cfg, former, ring := staged(t, true)
			all := installSteps(cfg.paths(), &cfg)
			if len(all) != steps {
				t.Fatalf("%d steps, the test knows %d", len(all), steps)
			}
			for _, until := range []int{first, min(first, steps-3) / 2} {
				for _, step := range all[:until] {
					if err := step(&cfg); exists(cfg.paths().install()) && err != nil {
						t.Fatal(err)
					}
				}
			}
			if exists(cfg.paths().install()) {
				if _, err := loadKeys(&cfg, time.Now()); err == nil || !strings.Contains(err.Error(), "not wholly in its place") {
					t.Errorf("half installed keys were read: %v", err)
				}
			}
			if err := finishInstall(&cfg); err != nil {
				t.Fatal(err)
			}
			k, err := loadKeys(&cfg, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if k.keyring.Version != 2 || k.signing.Fingerprint() != ring.Keys[0].Fingerprint || k.escrow.Fingerprint() == former.escrow.Fingerprint() {
				t.Errorf("keyring version %d, signing key %s", k.keyring.Version, k.signing.Fingerprint())
			}
			if len(k.retired) != 1 || k.retired[0].Key.Fingerprint() != former.signing.Fingerprint() || !k.retired[0].Stolen ||
				len(k.retiredEscrow) != 1 || k.retiredEscrow[0].Fingerprint() != former.escrow.Fingerprint() {
				t.Errorf("former keys %+v %+v", k.retired, k.retiredEscrow)
			}
			if report, err := VerifyStore(t.Context(), cfg, time.Now); err != nil || len(report.Faults) > 0 {
				t.Errorf("%+v %v", report, err)
			}
		})
	}
}

// TestStartFinishesAnInstall: the hub itself does what a crash left.
func TestStartFinishesAnInstall(t *testing.T) {
	t.Parallel()
	cfg, _, ring := staged(t, false)
	h, _, _, stop := running(t, cfg)
	if h.keys.keyring.Version != 2 || h.keys.signing.Fingerprint() != ring.Keys[0].Fingerprint {
		t.Errorf("keyring version %d", h.keys.keyring.Version)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestInstallWhereTheKeyCannotBeWritten: a key that systemd hands over is replaced by the administrator.
func TestInstallWhereTheKeyCannotBeWritten(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	path := cfg.SigningKey
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	// Not even root makes a file there.
	cfg.SigningKey = fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	if checkReplaceable(cfg.SigningKey) == nil {
		t.Skip("skipped: this system has no folder like the one that systemd keeps credentials in")
	}
	_, err = RotateKey(cfg, RotateOptions{}, time.Now)
	if err == nil || !strings.Contains(err.Error(), "nothing was changed: put "+cfg.paths().next()) {
		t.Fatalf("rotate: %v", err)
	}
	if version, _, err := ListKeys(cfg, time.Now()); err != nil || version != 1 {
		t.Fatalf("version %d, %v", version, err)
	}
	data, err := os.ReadFile(filepath.Join(cfg.paths().next(), signingFile))
	if err == nil {
		err = os.WriteFile(path, data, 0o600) // into the same file
	}
	if err != nil {
		t.Fatal(err)
	}
	next := cfg.paths().next()
	if _, err := InstallKeyring(cfg, filepath.Join(next, manifest.KeyringFile), filepath.Join(next, manifest.KeyringSigFile), time.Now); err != nil {
		t.Fatal(err)
	}
	if version, _, err := ListKeys(cfg, time.Now()); err != nil || version != 2 {
		t.Errorf("version %d, %v", version, err)
	}
}

// TestCrashWhileTheFolderGoes: the folder is removed in any order.
func TestCrashWhileTheFolderGoes(t *testing.T) {
	t.Parallel()
	for _, gone := range []string{manifest.KeyringFile, manifest.KeyringSigFile, signingFile} {
		cfg, _, _ := staged(t, false)
		all := installSteps(cfg.paths(), &cfg)
		for _, step := range all[:len(all)-2] {
			if err := step(&cfg); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(filepath.Join(cfg.paths().install(), gone)); err != nil {
			t.Fatal(err)
		}
		if err := finishInstall(&cfg); err != nil {
			t.Errorf("without %s: %v", gone, err)
		}
		if k, err := loadKeys(&cfg, time.Now()); err != nil || k.keyring.Version != 2 || len(k.retired) != 1 {
			t.Errorf("without %s: %+v %v", gone, k, err)
		}
	}
}
