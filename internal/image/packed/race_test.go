//go:build race

package packed

const raceDetector = true
