package daemon

import (
	"bufio"
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/certferry/certferry/gitstore/manifest"
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// credential reads <name>.env of the credentials folder. Its errors name lines and never values.
func (c *Config) credential(name string) (map[string]string, error) {
	if err := manifest.ValidName(name); err != nil {
		return nil, err
	}
	path := filepath.Join(c.CredentialsDir, name+".env")
	data, err := readSecret(path, "credential")
	if err != nil {
		return nil, err
	}
	values, err := parseEnv(data)
	if err != nil {
		return nil, fmt.Errorf("read credential %s: %w", path, err)
	}
	return values, nil
}

// parseEnv reads lines KEY=value; a value may stand in quotes, empty lines and lines that begin with # are skipped.
func parseEnv(data []byte) (map[string]string, error) {
	values := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxKeyFile+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		key = strings.TrimSpace(key)
		switch {
		case !ok || !variableName.MatchString(key):
			return nil, fmt.Errorf("line %d: it must read KEY=value", n)
		case strings.ContainsRune(value, 0):
			return nil, fmt.Errorf("line %d: the value holds a zero byte", n)
		}
		if _, twice := values[key]; twice {
			return nil, fmt.Errorf("line %d: the key stands there twice", n)
		}
		values[key] = unquote(strings.TrimSpace(value))
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return values, nil
}

func unquote(value string) string {
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return value[1 : n-1]
	}
	return value
}
