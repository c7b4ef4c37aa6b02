package acmesh

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestWhatAHookPutsInAFilesPlace: hooks run as the owner of the order's folder. A FIFO in the place of a file would hold up
// the hub, and the next start as well; a link leads to what the hub may read and they may not.
func TestWhatAHookPutsInAFilesPlace(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("name value\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(path string) error{
		"a FIFO":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"a link":   func(path string) error { return os.Symlink(secret, path) },
		"too much": func(path string) error { return os.Truncate(touched(t, path), maxFile+1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			h := &home{dir: dir, root: root, cert: "certs", hooks: []hookOf{{record: "name"}}}
			if err := os.Mkdir(filepath.Join(dir, "certs"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{addedFile, removedFile, failedFile, confFile, "job.log", "certs/fullchain.cer"} {
				if err := put(filepath.Join(dir, file)); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan bool, 1)
			go func() {
				_, err := h.read(confFile)
				done <- err != nil && len(h.records(addedFile)) == 0 && len(h.records(removedFile)) == 0 && h.failedRecord() == ""
				_ = h.log()
			}()
			select {
			case refused := <-done:
				if !refused {
					t.Error("it was read")
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it holds the hub up")
			}
		})
	}
}

// TestWhatIsWrittenTakesNoForeignPlace: a FIFO would hold up who opens it for writing, and a link leads to another file.
func TestWhatIsWrittenTakesNoForeignPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := &home{dir: dir, root: root}
	kept := touched(t, filepath.Join(dir, "kept"))
	for name, put := range map[string]func(path string) error{
		"a FIFO":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"a link":   func(path string) error { return os.Symlink(filepath.Base(kept), path) },
	} {
		if err := put(filepath.Join(dir, seenFile)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- h.write(seenFile, "x") }()
		select {
		case err := <-done:
			if info, serr := os.Stat(kept); err != nil || serr != nil || info.Size() > 0 {
				t.Errorf("%s: %v, %v, %v", name, err, serr, info)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s holds the hub up", name)
		}
		if err := os.Remove(filepath.Join(dir, seenFile)); err != nil {
			t.Error(err)
		}
	}
}

// touched makes an empty file.
func touched(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Error(err)
	}
	return path
}

// TestWebrootsHaveNoWayOut: who may write in a webroot does not choose where root makes folders.
func TestWebrootsHaveNoWayOut(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]string{"the first folder": ".well-known", "the second": challengeDir} {
		webroot, victim := t.TempDir(), t.TempDir()
		path := filepath.Join(webroot, link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(victim, "made"), path); err != nil {
			t.Fatal(err)
		}
		_ = prepareWebroot(webroot, nil)
		if entries, err := os.ReadDir(victim); err != nil || len(entries) != 0 {
			t.Errorf("%s: made %v, %v", name, entries, err)
		}
	}
	webroot, victim := t.TempDir(), t.TempDir()
	if err := os.Symlink(victim, filepath.Join(webroot, ".well-known")); err != nil {
		t.Fatal(err)
	}
	if err := prepareWebroot(webroot, nil); err == nil {
		t.Error("a link out of the webroot was followed")
	}
	webroot = t.TempDir()
	if err := prepareWebroot(webroot, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(webroot, challengeDir)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}
