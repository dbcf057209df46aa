package diagnostic

import (
	"path"
	"strings"
)

// Resolve gives the path of a file of the guest as the workspace has it:
// relative, with slashes. root is the workspace in the guest and dir the
// directory that a relative path is seen from, both absolute. It refuses what
// is not in the workspace; symbolic links are not followed.
func Resolve(root, dir, name string) (string, bool) {
	if !path.IsAbs(root) || name == "" || len(name) > maxPath || strings.ContainsAny(name, "\x00\r\n") {
		return "", false
	}
	if !path.IsAbs(name) {
		if !path.IsAbs(dir) {
			return "", false
		}
		name = path.Join(dir, name)
	}
	name, root = path.Clean(name), path.Clean(root)
	if root != "/" {
		root += "/"
	}
	rest, ok := strings.CutPrefix(name, root)
	if !ok || rest == "" {
		return "", false
	}
	return rest, true
}
