// Package console holds the web console that the hub serves.
package console

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed all:dist
var built embed.FS

//go:embed missing/index.html
var missing embed.FS

// FS returns the built console. Where the program was built without Node it is one page that says how to get it.
func FS() (fs.FS, error) { return choose(built, "dist") }

// choose takes the folder of a built console if it has a page, and the page for a missing one otherwise.
func choose(files fs.FS, dir string) (fs.FS, error) {
	if _, err := fs.Stat(files, dir+"/index.html"); err != nil {
		files, dir = missing, "missing"
	}
	sub, err := fs.Sub(files, dir)
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	return sub, nil
}
