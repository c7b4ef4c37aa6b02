// This file lays a bundle out in the files that a target names.

package agent

import (
	"errors"
	"fmt"

	"github.com/certferry/certferry/gitstore/bundle"
)

// File is one file that a deployer wants on disk.
type File struct {
	Path string
	Data []byte
	// Secret files hold a key: they are never readable by others.
	Secret bool
	// Open reads a file of this kind. It is set where the same contents become other bytes each time they are encoded;
	// where it is nil, equal bytes and nothing else hold the same.
	Open func(data []byte) (*bundle.Bundle, error)
}

// Outputs returns the files that t names, with b in them, and an error if there are none. Those with the key come first,
// so that a crash between two renames leaves the old certificate in its place. The certificate comes before a chain of its
// own: all of them read one after the other begin with the leaf.
func Outputs(t Target, b *bundle.Bundle) ([]File, error) {
	key, err := b.KeyPEM()
	if err != nil {
		return nil, fmt.Errorf("encode the key for target %q: %w", t.Name, err)
	}
	var files []File
	if t.Key != "" {
		files = append(files, File{Path: t.Key, Data: key, Secret: true})
	}
	if t.Combined != "" {
		files = append(files, File{Path: t.Combined, Data: append(b.FullChainPEM(), key...), Secret: true})
	}
	if t.Keystore.Path != "" {
		data, err := t.Keystore.encode(b)
		if err != nil {
			return nil, fmt.Errorf("encode the key store for target %q: %w", t.Name, err)
		}
		files = append(files, File{Path: t.Keystore.Path, Data: data, Secret: true, Open: t.Keystore.Open})
	}
	switch {
	case t.Certificate != "" && t.Chain != "":
		files = append(files, File{Path: t.Certificate, Data: b.LeafPEM()}, File{Path: t.Chain, Data: b.ChainPEM()})
	case t.Certificate != "":
		files = append(files, File{Path: t.Certificate, Data: b.FullChainPEM()})
	case len(files) == 0:
		return nil, errors.New("lay out the files of target " + t.Name + ": it names none")
	}
	return files, nil
}
