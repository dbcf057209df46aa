//go:build !race

package packed

const raceDetector = false
