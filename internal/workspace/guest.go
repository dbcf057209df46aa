package workspace

import (
	_ "embed" // the scripts that run in the guest
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// GuestPath is where the workspace is in every guest, as in a container action.
const GuestPath = "/github/workspace"

//go:embed scripts/attach.sh
var attachScript string

//go:embed scripts/detach.sh
var detachScript string

// A GuestScript is a POSIX shell script that root runs in the guest.
type GuestScript struct {
	Text string
	Args []string
}

// Attach puts the drive whose file system has a UUID at GuestPath. Device reads
// what it prints.
func Attach(uuid [16]byte) GuestScript {
	return GuestScript{attachScript, []string{hex.EncodeToString(uuid[:]), GuestPath}}
}

// Detach takes the drive out of the guest's hands. Detached reads what it prints.
func Detach() GuestScript { return GuestScript{detachScript, []string{GuestPath}} }

// deviceName is what no device of a Hurd or a Linux goes beyond; a guest can say anything.
var deviceName = regexp.MustCompile(`^(/[A-Za-z0-9._-]{1,32}){1,8}$`)

// Device is the disk that Attach has found, as the guest names it. It may hold
// what a shell's start files print before.
func Device(output string) (string, error) {
	word, device, ok := strings.Cut(lastLine(output), " ")
	if !ok || word != "attached" || !deviceName.MatchString(device) {
		return "", fmt.Errorf("attaching the drive: the guest says %q", lastLine(output))
	}
	return device, nil
}

// Detached tells how Detach has ended: whether the file system was let go of,
// or could only be made read-only, because something in the guest uses it.
func Detached(output string) (gone bool, err error) {
	switch line := lastLine(output); line {
	case "detached":
		return true, nil
	case "readonly":
		return false, nil
	default:
		return false, fmt.Errorf("detaching the drive: the guest says %q", line)
	}
}

func lastLine(text string) string {
	text = strings.TrimRight(text, "\r\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
