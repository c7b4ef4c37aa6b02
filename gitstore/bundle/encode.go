// This file is the text inside a sealed bundle: a line that names the format, a line with the header, an empty line,
// and PEM, so that a person who opened the bundle with gpg can read it and hand it to other programs.

package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// magic is the first line of an encoded bundle; the number is the format's version.
//
// History:
//
//	1  2026-11  first format
const magic = "certferry-bundle-v1\n"

// Header says which certificate and which issue of it a bundle is, and for which server.
type Header struct {
	Certificate string `json:"certificate"`
	// Server is empty in a copy for the hub's escrow.
	Server string `json:"server"`
	// LeafSHA256 is the lower-case hex SHA-256 of the leaf.
	LeafSHA256 string `json:"leaf_sha256"`
}

// Encode writes the bundle with its header. The result holds the private key in clear: it must be sealed.
func Encode(h Header, b *Bundle) ([]byte, error) {
	switch {
	case b.Leaf == nil:
		return nil, errors.New("encode bundle: no leaf certificate")
	case h.LeafSHA256 != b.LeafSHA256():
		return nil, errors.New("encode bundle: the header names another leaf")
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	var out bytes.Buffer
	out.WriteString(magic)
	out.Write(line)
	out.WriteString("\n\n")
	out.Write(b.FullChainPEM())
	if b.Key != nil {
		key, err := b.KeyPEM()
		if err != nil {
			return nil, err
		}
		out.Write(key)
		clear(key)
	}
	if out.Len() > MaxSize {
		return nil, fmt.Errorf("encode bundle: more than %d bytes", MaxSize)
	}
	return out.Bytes(), nil
}

// Decode reads what Encode wrote, and nothing else: any deviation, down to a space, is an error.
func Decode(data []byte) (Header, *Bundle, error) {
	var h Header
	if len(data) > MaxSize {
		return h, nil, fmt.Errorf("decode bundle: more than %d bytes", MaxSize)
	}
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return h, nil, errors.New("decode bundle: it does not start with certferry-bundle-v1; a newer program may have written it")
	}
	line, body, ok := bytes.Cut(rest, []byte("\n\n"))
	if !ok {
		return h, nil, errors.New("decode bundle: no header")
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return Header{}, nil, errors.New("decode bundle: the header is damaged")
	}
	b, err := Parse(body)
	if err != nil {
		return Header{}, nil, fmt.Errorf("decode bundle: %w", err)
	}
	again, err := Encode(h, b)
	if err != nil {
		return Header{}, nil, fmt.Errorf("decode bundle: %w", err)
	}
	defer clear(again)
	if !bytes.Equal(again, data) {
		return Header{}, nil, errors.New("decode bundle: it is not in canonical form")
	}
	return h, b, nil
}
