package guest

import (
	"path"
	"slices"
)

// scriptLine is a command line that runs a POSIX shell script with arguments,
// which may hold anything but NUL. Lines of the script that begin with # are
// left out, so none may stand within quotes. A login shell that is known to be a
// POSIX shell runs the script itself: starting another one costs an emulated
// guest as much as everything that the script does.
func scriptLine(loginShell, script string, args ...string) string {
	posix := []string{"sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh"}
	if slices.Contains(posix, path.Base(loginShell)) {
		return "set -- " + quoteAll(args...) + "\n" + compact(script)
	}
	return "exec sh -c " + quoteAll(append([]string{compact(script), "sh"}, args...)...)
}
