//go:build race

package image

// raceDetector multiplies the memory that a program takes.
const raceDetector = true
