package daemon

import "io/fs"

// consoleFiles is the console that was built into the program, nil where there is none.
func consoleFiles() (fs.FS, error) { return nil, nil } //nolint:nilnil // no console is no fault
