package report

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/org/hurd-qemu-action/internal/units"
)

// clean makes one line of any text that shows what it is: white space is
// collapsed, and what is invisible or changes the look of other text goes. It
// is cut to a number of bytes.
func clean(s string, limit int) string {
	return strings.Join(strings.Fields(visible(s, limit)), " ")
}

// visible is clean but for the white space: tabs become spaces, and line ends
// go, since what it is for has lines already.
func visible(s string, limit int) string {
	s, cut := head(s, limit)
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r' || unicode.Is(unicode.Zs, r):
			return ' '
		case unicode.Is(unicode.C, r) || unicode.In(r, unicode.Zl, unicode.Zp), r >= 0xfe00 && r <= 0xfe0f:
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if cut {
		s += "…"
	}
	return s
}

// head cuts a text to a number of bytes, at the end of a character.
func head(s string, limit int) (string, bool) {
	if len(s) <= limit {
		return s, false
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit], true
}

// seconds writes a duration for people, as the log does: 0.84 s, 12.3 s, 2 min
// 5 s, 1 h 2 min.
func seconds(d time.Duration) string {
	switch s := d.Seconds(); {
	case d < 0:
		return "0 s"
	case s < 9.995:
		return strconv.FormatFloat(s, 'f', 2, 64) + " s"
	case s < 99.95:
		return strconv.FormatFloat(s, 'f', 1, 64) + " s"
	case s < 3599.5:
		n := int64(math.Round(s))
		return fmt.Sprintf("%d min %d s", n/60, n%60)
	default:
		n := int64(math.Round(s / 60))
		return fmt.Sprintf("%d h %d min", n/60, n%60)
	}
}

// clock writes a moment of the run: 0:12.345, 1:02:05.000.
func clock(d time.Duration) string {
	d = max(d, 0).Truncate(time.Millisecond)
	hours, minutes, rest := int64(d/time.Hour), int64(d%time.Hour/time.Minute), (d % time.Minute).Seconds()
	if hours > 0 {
		return fmt.Sprintf("%d:%02d:%06.3f", hours, minutes, rest)
	}
	return fmt.Sprintf("%d:%06.3f", minutes, rest)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// join puts what is known between separators.
func join(separator string, parts ...string) string {
	var known []string
	for _, p := range parts {
		if p != "" {
			known = append(known, p)
		}
	}
	return strings.Join(known, separator)
}

// with puts a text before and after one that is known.
func with(before, s, after string) string {
	if s == "" {
		return ""
	}
	return before + s + after
}

func size(b units.Bytes) string {
	if b <= 0 {
		return ""
	}
	return b.Human()
}

func took(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return seconds(d)
}

// beside is a path of a file that lies by the page. It has no scheme and leads
// nowhere else.
var beside = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*$`)

// maxURL bounds an address; one that was cut would be another one.
const maxURL = 500

// web gives an address when it is one of the web.
func web(address string) string {
	u, err := url.Parse(address)
	if err != nil || len(address) > maxURL || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return ""
	}
	return u.String()
}
