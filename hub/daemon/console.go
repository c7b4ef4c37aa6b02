package daemon

import (
	"io/fs"

	"github.com/certferry/certferry/console"
)

// consoleFiles is the console that was built into the program, or the page that says how to add it.
func consoleFiles() (fs.FS, error) { return console.FS() }
