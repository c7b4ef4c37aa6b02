package acmesh

import (
	"slices"
	"strings"

	"github.com/certferry/certferry/issuer"
)

// Mask hides credentials as a run would.
func Mask(credentials map[string]string, text string) string {
	h := &home{credentials: credentials}
	h.finishMask()
	return h.mask.Replace(text)
}

// Told is what people are told of the output of a run with credentials.
func Told(credentials map[string]string, text string) string {
	h := &home{credentials: credentials}
	h.finishMask()
	var told []string
	out := &output{mask: h.mask, tell: func(e issuer.Event) { told = append(told, e.Line) }}
	for part := range slices.Chunk([]byte(text), 512) { // as a pipe brings it
		_, _ = out.Write(part)
	}
	out.flush()
	return strings.Join(told, "\n")
}

// CurlScript stands before curl.
const CurlScript = "shell/curl.sh"
