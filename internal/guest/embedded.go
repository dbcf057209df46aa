package guest

import (
	"path"
	"slices"
)

// scriptLine is a command line that runs a POSIX shell script with arguments,
// which may hold anything but NUL. Lines of the script that begin with # are
// left out, so none may stand within quotes. A login shell that is known to be a
// plain POSIX shell runs the script itself: starting another one costs an emulated
// guest as much as everything that the script does. bash is none: run by sshd, it
// reads its user's ~/.bashrc, which can change what commands do or trace them with
// the secrets in them; and in some ksh printf is no part of the shell, so that
// what it prints is in a program's arguments.
func scriptLine(loginShell, script string, args ...string) string {
	plain := []string{"sh", "dash", "ash"}
	if slices.Contains(plain, path.Base(loginShell)) {
		return "set -- " + quoteAll(args...) + "\n" + compact(script)
	}
	return "exec sh -c " + quoteAll(append([]string{compact(script), "sh"}, args...)...)
}
