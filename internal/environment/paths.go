package environment

import (
	"path"
	"strings"
)

// A Place is a file or directory that both this host and the guest have.
type Place struct{ Host, Guest string } // its path on either

// Paths say what this host and the guest have in common. Later places with the
// same guest path are further names of it here, such as the one outside the
// container that this process runs in.
type Paths []Place

// ToGuest makes a value the path in the guest when it is a path of this host
// that the guest has, or one below; any other value is left as it is. As with the
// runner's own containers it is the whole value that counts: a path within a
// text, or the second one of a list, is not touched.
func (p Paths) ToGuest(value string) string {
	result, longest := value, -1
	for _, entry := range p {
		if moved, ok := move(value, entry.Host, entry.Guest); ok && len(entry.Host) > longest {
			result, longest = moved, len(entry.Host)
		}
	}
	return result
}

// ToHost is the way back.
func (p Paths) ToHost(value string) string {
	result, longest := value, -1
	for _, entry := range p {
		if moved, ok := move(value, entry.Guest, entry.Host); ok && len(entry.Guest) > longest {
			result, longest = moved, len(entry.Guest)
		}
	}
	return result
}

// inGuest tells whether a path of the guest is one of something of this host.
func (p Paths) inGuest(value string) bool {
	for _, entry := range p {
		if _, ok := move(value, entry.Guest, entry.Guest); ok {
			return true
		}
	}
	return false
}

// move makes from, or a path below it, one of to.
func move(value, from, to string) (string, bool) {
	if from == "" || from == "/" {
		return "", false
	}
	rest, ok := strings.CutPrefix(value, path.Clean(from))
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return path.Clean(to) + rest, true
}
