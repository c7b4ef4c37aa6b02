//go:build race

package source_test

// raceFactor is by how much the race detector's shadow of the memory in use may raise what a test measures.
const raceFactor = 4
