package provision

import (
	"path"
	"strconv"
	"strings"
)

// loginUsers lists the accounts of a passwd file that have a shell. Names,
// homes and shells that are not printable are left out: they end up in messages.
func loginUsers(passwd []byte) []User {
	var users []User
	for line := range strings.Lines(string(passwd)) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(fields) != 7 || fields[0] == "" || fields[0][0] == '#' {
			continue
		}
		if shown := fields[0] + fields[5] + fields[6]; printable(shown) != shown {
			continue
		}
		uid, err1 := strconv.ParseUint(fields[2], 10, 32)
		gid, err2 := strconv.ParseUint(fields[3], 10, 32)
		if err1 != nil || err2 != nil || !path.IsAbs(fields[5]) || !hasShell(fields[6]) {
			continue
		}
		users = append(users, User{
			Name: fields[0], UID: uint32(uid), GID: uint32(gid), Home: path.Clean(fields[5]), Shell: fields[6],
		})
	}
	return users
}

// hasShell leaves out the shells that let nobody in. None means /bin/sh.
func hasShell(shell string) bool {
	switch path.Base(shell) {
	case "nologin", "false", "sync", "halt", "shutdown":
		return false
	}
	return true
}
