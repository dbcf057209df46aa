package guest

import (
	"context"
	_ "embed" // the scripts that run in the guest
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

//go:embed scripts/user.sh
var userScript string

// A UserError says that the script can't run as a user.
type UserError struct {
	User string
	Why  string // in one line
}

// Error names the user, the reason and the ways out.
func (e *UserError) Error() string {
	return fmt.Sprintf("the script can't run as user %q: %s (log in as root, who can make and become any user, "+
		"or as that user itself, or have the user made in the image)", e.User, e.Why)
}

// A User is one of the guest's.
type User struct {
	Name     string
	UID, GID int
	Home     string // may not exist, as with system users
	Created  bool   // by this call
}

// userName is what Linux and the Hurd take as a name without being forced.
var userName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

func userProblem(name string) string {
	if !userName.MatchString(name) {
		return "that is no name of a user: letters, digits, _, - and dots, beginning with a letter or _, 32 at most"
	}
	return ""
}

// EnsureUser looks a user of the guest up, and makes one unless it exists, with
// a home directory, a group of its own and no password. That takes root. The
// error of a user who can't be had is a *UserError.
func (c *Client) EnsureUser(ctx context.Context, name string) (User, error) {
	if problem := userProblem(name); problem != "" {
		return User{}, &UserError{User: name, Why: problem}
	}
	var out, diag bounded
	status, err := c.Run(ctx, Command{
		Script: userScript, Args: []string{name}, Stdout: &out, Stderr: &diag,
	})
	if err != nil {
		return User{}, fmt.Errorf("looking up the user %s in the guest: %w", name, err)
	}
	u := User{Name: name}
	line := lastLine(out.String())
	kind, rest, _ := strings.Cut(line, " ")
	switch fields := strings.SplitN(rest, " ", 4); {
	case kind == "nouser":
		return User{}, &UserError{User: name, Why: printable(rest)}
	case kind == "user" && len(fields) == 4:
		var uidErr, gidErr error
		u.UID, uidErr = strconv.Atoi(fields[0])
		u.GID, gidErr = strconv.Atoi(fields[1])
		u.Created, u.Home = fields[2] == "created", fields[3]
		if uidErr == nil && gidErr == nil && u.UID >= 0 && u.GID >= 0 && path.IsAbs(u.Home) {
			return u, nil
		}
	}
	return User{}, fmt.Errorf("looking up the user %s in the guest: %s and printed %q: %s", name, status,
		printable(line), printable(strings.TrimSpace(diag.String())))
}
