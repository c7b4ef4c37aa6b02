package console

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func page(t *testing.T, files fs.FS, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	data, err := fs.ReadFile(files, "index.html")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFSAlwaysHasAPage(t *testing.T) {
	files, err := FS()
	if got := page(t, files, err); !strings.Contains(got, "Certferry") {
		t.Errorf("page is %q, want one that names Certferry", got)
	}
}

func TestChooseTakesTheBuiltConsole(t *testing.T) {
	files, err := choose(fstest.MapFS{"dist/index.html": {Data: []byte("built")}}, "dist")
	if got := page(t, files, err); got != "built" {
		t.Errorf("page is %q, want the built one", got)
	}
}

func TestChooseSaysHowToGetAMissingConsole(t *testing.T) {
	files, err := choose(fstest.MapFS{"dist/.keep": {}}, "dist")
	got := page(t, files, err)
	for _, want := range []string{"Node 20", "make build"} {
		if !strings.Contains(got, want) {
			t.Errorf("page does not say %q: %s", want, got)
		}
	}
}
