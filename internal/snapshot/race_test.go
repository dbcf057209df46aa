//go:build race

package snapshot

// raceDetector multiplies the memory that a program takes.
const raceDetector = true
