// Package distribution brings acme.sh onto a machine as it was published at one commit, and tells later whether it
// still is. The program itself is never part of this one (GPL-3.0): only the SHA-256 of each of its files stands here.
package distribution

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// Commit is that of acme.sh that the sums are of.
	Commit = "d60c75b4e30a26addd8b9d0bfdeeed39c84ed51e"
	// URL is where the archive of the commit is.
	URL = "https://github.com/acmesh-official/acme.sh/archive/" + Commit + ".tar.gz"
	// Script is the program's file.
	Script = "acme.sh"
	// maxFile is the most that a file of it may hold, in bytes: acme.sh itself has 250 kB.
	maxFile = 4 << 20
	// maxArchive is the most that an archive may hold, in bytes, before and after it is unpacked.
	maxArchive = 64 << 20
	// patience is how long a download may take.
	patience = 5 * time.Minute
)

//go:embed SHA256SUMS
var published string

// Sums are the SHA-256 of files, by their path below the program's folder, such as dnsapi/dns_cf.sh.
type Sums map[string][sha256.Size]byte

// Published are the sums of acme.sh at Commit.
func Published() Sums {
	sums, err := ParseSums(published)
	if err != nil {
		panic(err) // the file is part of this program, and a test reads it
	}
	return sums
}

// ParseSums reads sums as sha256sum(1) writes them.
func ParseSums(text string) (Sums, error) {
	sums := Sums{}
	for line := range strings.Lines(text) {
		sum, path, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		raw, err := hex.DecodeString(sum)
		if !ok || err != nil || len(raw) != sha256.Size || !filepath.IsLocal(path) || filepath.Clean(path) != path {
			return nil, fmt.Errorf("read sums: %q is no line of sha256sum", line)
		}
		if _, twice := sums[path]; twice {
			return nil, fmt.Errorf("read sums: %s stands there twice", path)
		}
		sums[path] = [sha256.Size]byte(raw)
	}
	return sums, nil
}

// ChangedError names files that are not as they were published.
type ChangedError struct {
	// Files that differ, Missing ones, and those that are Unknown as they are no part of what was published.
	Files, Missing, Unknown []string
}

// Error lists the files, at most three of a kind.
func (e *ChangedError) Error() string {
	var parts []string
	for _, kind := range []struct {
		word  string
		files []string
	}{{"changed", e.Files}, {"missing", e.Missing}, {"not part of it", e.Unknown}} {
		n := len(kind.files)
		if n == 0 {
			continue
		}
		text := kind.word + ": " + strings.Join(kind.files[:min(n, 3)], ", ")
		if n > 3 {
			text += fmt.Sprintf(" and %d more", n-3)
		}
		parts = append(parts, text)
	}
	return "acme.sh is not as it was published at " + Commit[:12] + ": " + strings.Join(parts, "; ")
}

// Verify holds files below dir against the sums, all of them where none is named. It returns a *ChangedError where one
// differs.
func (s Sums) Verify(dir string, files ...string) error {
	if len(files) == 0 {
		files = slices.Sorted(maps.Keys(s))
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &ChangedError{Missing: files}
	}
	if err != nil {
		return fmt.Errorf("open folder of acme.sh: %w", err)
	}
	defer func() { _ = root.Close() }()
	found := &ChangedError{}
	for _, file := range files {
		want, known := s[file]
		if !known {
			found.Unknown = append(found.Unknown, file)
			continue
		}
		have, err := sumOf(root, file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			found.Missing = append(found.Missing, file)
		case err != nil:
			return err
		case have != want:
			found.Files = append(found.Files, file)
		}
	}
	if len(found.Files)+len(found.Missing)+len(found.Unknown) > 0 {
		return found
	}
	return nil
}

func sumOf(root *os.Root, file string) ([sha256.Size]byte, error) {
	f, err := root.Open(file)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("read file of acme.sh: %w", err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxFile+1)); err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("read file of acme.sh: %w", err)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Version is what a copy of the script calls itself; empty where it does not say.
func Version(script string) (string, error) {
	f, err := os.Open(script) //nolint:gosec // the administrator's own setting
	if err != nil {
		return "", fmt.Errorf("read acme.sh: %w", err)
	}
	defer func() { _ = f.Close() }()
	head, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return "", fmt.Errorf("read acme.sh: %w", err)
	}
	for line := range bytes.Lines(head) {
		if version, ok := bytes.CutPrefix(line, []byte("VER=")); ok {
			return strings.Trim(string(bytes.TrimSpace(version)), `"'`), nil
		}
	}
	return "", nil
}

// Download asks for an archive, Install's input. The caller closes it.
func Download(ctx context.Context, client *http.Client, url string) (io.ReadCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("download acme.sh: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("download acme.sh: %w; on a machine without internet give the archive with --from FILE", err)
	}
	if resp.StatusCode != http.StatusOK {
		cancel()
		return nil, errors.Join(fmt.Errorf("download acme.sh from %s: HTTP status %d", url, resp.StatusCode), resp.Body.Close())
	}
	return body{resp.Body, cancel}, nil
}

// body ends a download's time with it.
type body struct {
	io.ReadCloser

	cancel context.CancelFunc
}

func (b body) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
