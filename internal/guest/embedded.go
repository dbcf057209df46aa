package guest

// ScriptLine is a Command's line that runs a POSIX shell script with arguments,
// which may hold anything but NUL. Lines of the script that begin with # are
// left out, so none may stand within quotes. Whatever the user's login shell
// is, sh runs the script.
func ScriptLine(script string, args ...string) string {
	return "exec sh -c " + quoteAll(append([]string{compact(script), "sh"}, args...)...)
}
