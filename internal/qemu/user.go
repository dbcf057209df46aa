package qemu

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// User is who QEMU runs as.
type User struct{ UID, GID uint32 }

// nobody owns no file of any system.
const nobody = 65534

// Nobody is the user that QEMU runs as unless told otherwise.
func Nobody() User { return User{nobody, nobody} }

// Access is how a QEMU that runs as another user gets at the KVM device. The
// zero value lets it open the device by itself, with that user's rights.
type Access struct {
	Groups []uint32 // supplementary groups to have
	Open   string   // a device to be opened by us and passed on
	Late   bool     // start as root; QEMU changes its user after opening the device, and then no longer dies with us
}

// identity tells how QEMU becomes its user: started with a credential, or by
// itself. Only root can make it another user.
func (o StartOptions) identity(euid int, uidMap string) (*syscall.Credential, *Drop) {
	user := o.User
	if user == (User{}) {
		user = Nobody()
	}
	switch {
	case euid != 0 || !mapped(uidMap, user.UID):
		return nil, nil
	case o.Access.Late:
		return nil, &Drop{User: user, RunWith: o.Features != nil && o.Features.RunWith}
	}
	return &syscall.Credential{Uid: user.UID, Gid: user.GID, Groups: o.Access.Groups}, nil
}

// mapped tells whether a user exists in this user namespace, from
// /proc/self/uid_map (user_namespaces(7)). In a rootless container that maps
// one user only, "root" is nobody special, and cannot become anyone else. An
// empty map means that the kernel has no user namespaces.
func mapped(uidMap string, uid uint32) bool {
	if strings.TrimSpace(uidMap) == "" {
		return true
	}
	for line := range strings.Lines(uidMap) {
		var inside, outside, count uint64
		if n, _ := fmt.Sscan(line, &inside, &outside, &count); n == 3 && uint64(uid) >= inside && uint64(uid)-inside < count {
			return true
		}
	}
	return false
}

// readUIDMap gives this process's user map; no map where there is none.
func readUIDMap() string {
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return ""
	}
	return string(data)
}
