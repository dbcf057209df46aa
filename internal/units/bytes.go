// Package units holds the size type that every package shares.
package units

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in bytes.
type Bytes int64

// The binary multiples that ParseBytes accepts as suffixes.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

// ErrSize is wrapped by every error of ParseBytes.
var ErrSize = errors.New("not a size: write 2G, 1536M, or a plain number of MiB")

var suffixes = []struct {
	suffix string
	unit   Bytes
}{{"T", TiB}, {"G", GiB}, {"M", MiB}, {"K", KiB}}

// ParseBytes reads a size: a positive decimal number followed by K, M, G or T
// (binary multiples, optionally spelled KiB or KB), or a plain number of MiB.
func ParseBytes(text string) (Bytes, error) {
	s := strings.ToUpper(strings.TrimSpace(text))
	s = strings.TrimSuffix(strings.TrimSuffix(s, "B"), "I")
	unit := MiB
	for _, u := range suffixes {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = strings.TrimSpace(rest), u.unit
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is %w", text, ErrSize)
	}
	if n > uint64(math.MaxInt64/int64(unit)) {
		return 0, fmt.Errorf("%q is %w (it is too large)", text, ErrSize)
	}
	return Bytes(n) * unit, nil
}

// MiB returns the size in whole MiB, rounded down.
func (b Bytes) MiB() int64 { return int64(b / MiB) }

// String writes the size exactly, in the largest unit that divides it, as
// ParseBytes reads it; a size that is no multiple of a KiB is written with
// the unit B, which ParseBytes does not read.
func (b Bytes) String() string {
	for _, u := range suffixes {
		if b != 0 && b%u.unit == 0 {
			return strconv.FormatInt(int64(b/u.unit), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// Human writes the size rounded to three digits, for people: "3.91 GiB".
func (b Bytes) Human() string {
	for _, u := range suffixes {
		if b >= u.unit {
			return strconv.FormatFloat(float64(b)/float64(u.unit), 'g', 3, 64) + " " + u.suffix + "iB"
		}
	}
	return strconv.FormatInt(int64(b), 10) + " B"
}
