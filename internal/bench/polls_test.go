package main

import (
	"context"
	"os"
	"testing"
)

// TestMain lets the test program be the servers of comparisons, as the benchmark itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == serveCommand || os.Args[1] == serveACME) {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}
