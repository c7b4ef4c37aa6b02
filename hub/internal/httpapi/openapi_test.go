package httpapi_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/certferry/certferry/hub/internal/httpapi"
)

var update = flag.Bool("update", false, "write docs/reference/openapi.json")

// TestOpenAPIIsCurrent: run with -update after a change of operations or types.
func TestOpenAPIIsCurrent(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "..", "docs", "reference", "openapi.json")
	got, err := httpapi.Document()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says: go test ./hub/internal/httpapi -run TestOpenAPIIsCurrent -update", path)
	}
}
