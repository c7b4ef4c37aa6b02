// Package atomicfile replaces files so that a reader, a crash or a full disk sees the whole old file or the whole
// new one, never something between.
//
// A file is written under another name in its own folder, given its owner, mode and extended attributes, and
// fsynced; the rename puts it in place, and the folder is fsynced. Every replacement has a new inode and a fresh
// modification time: nginx 1.27 and later keep the old certificate when both are unchanged.
package atomicfile

import (
	"errors"
	"io/fs"
)

// Write replaces path by data with the given mode, owned by the running user.
func Write(path string, data []byte, mode fs.FileMode) error { return errors.New("write file: not built yet") }
