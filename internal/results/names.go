package results

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxName is how long an artifact's name may be, in bytes. The service's own
// limit is not published; file systems to which artifacts are downloaded, and
// act's server, take 255 with the suffix .zip.
const maxName = 250

// ErrName is wrapped by every error of CheckName.
var ErrName = errors.New("not a name for an artifact")

// CheckName tells whether the artifact service would take a name. Its rules
// are those of actions/upload-artifact.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > maxName:
		return fmt.Errorf("%w: it has %d bytes, more than %d: %q", ErrName, len(name), maxName, name[:40]+"...")
	case name == "." || name == "..":
		return fmt.Errorf("%w: %q is a directory of its own", ErrName, name)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: %q is not UTF-8", ErrName, name)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f || strings.ContainsRune(`":<>|*?\/`, r) {
			return fmt.Errorf(`%w: %q holds %q; not allowed are " : < > | * ? \ / and control characters`, ErrName, name, r)
		}
	}
	return nil
}

// maxEntryName bounds a cleaned name. The zip format itself ends at 65535.
const maxEntryName = 4096

// entryName makes a name for an entry of a zip of any name that a file on a
// Linux or Hurd file system may have, by the rules that Bundle tells. Elements
// that are empty or "." vanish. Undoing every %XX gives the original, so that
// the escape makes no two names alike.
func entryName(name string) string {
	var elements []string
	for element := range strings.SplitSeq(name, "/") {
		switch element {
		case "", ".":
		case "..":
			elements = append(elements, "%2E%2E")
		default:
			elements = append(elements, escape(element))
		}
	}
	return strings.Join(elements, "/")
}

func escape(element string) string {
	var b strings.Builder
	for i := 0; i < len(element); {
		r, n := utf8.DecodeRuneInString(element[i:])
		switch {
		case r == utf8.RuneError && n == 1, r < ' ', r >= 0x7f && r < 0xa0, strings.ContainsRune(`":<>|*?\`, r),
			r == '%' && i+2 < len(element) && hex(element[i+1]) && hex(element[i+2]):
			for _, c := range []byte(element[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		default:
			b.WriteString(element[i : i+n])
		}
		i += n
	}
	return b.String()
}

func hex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// names gives every entry a name of its own, and a place of its own: no name
// is also a directory of another.
type names struct{ files, dirs map[string]bool }

// take returns a name that is free: the given one, which entryName has made, or
// one with numbers.
func (n *names) take(name string) string {
	if n.files == nil {
		n.files, n.dirs = map[string]bool{}, map[string]bool{}
	}
	elements := strings.Split(name, "/")
	path := ""
	for i, element := range elements {
		last := i == len(elements)-1
		free := numbered(element, func(e string) bool {
			return !n.files[path+e] && (!last || !n.dirs[path+e])
		})
		if path += free; last {
			n.files[path] = true
			return path
		}
		n.dirs[path] = true
		path += "/"
	}
	return path
}

// numbered is name.txt, or the first of name-2.txt, name-3.txt and so on that
// is free.
func numbered(name string, free func(string) bool) string {
	if free(name) {
		return name
	}
	stem, suffix := name, ""
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		stem, suffix = name[:dot], name[dot:]
	}
	for i := 2; ; i++ {
		if next := stem + "-" + strconv.Itoa(i) + suffix; free(next) {
			return next
		}
	}
}
