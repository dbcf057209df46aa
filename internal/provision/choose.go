package provision

import (
	"errors"
	"fmt"
)

// Method is a way to put keys into a guest.
type Method string

// The methods, and MethodAuto, which Choose replaces by one of them.
const (
	MethodAuto    Method = "auto"
	MethodExt2    Method = "ext2"    // edit the image: Prepare, Fill
	MethodNoCloud Method = "nocloud" // a seed disk for cloud-init: Seed
	MethodConsole Method = "console" // type on the serial console: Dialogue
	MethodNone    Method = "none"    // the guest has the keys already
)

// Facts are what Choose decides upon.
type Facts struct {
	Guest       Guest // what Inspect found; meaningless when InspectErr is set
	InspectErr  error // why the image's root could not be inspected
	HasUserData bool  // the user gave user-data or meta-data
}

// Choose decides how the guest is provisioned and why, for the log. A method
// that the user asked for is taken, unless it cannot work: that is the error.
func Choose(wanted Method, f Facts) (Method, string, error) {
	switch wanted {
	case MethodAuto, "":
		return chooseAuto(f)
	case MethodExt2:
		if f.InspectErr != nil {
			return "", "", fmt.Errorf("provision: ext2 is not possible: %w", f.InspectErr)
		}
	case MethodNoCloud, MethodConsole, MethodNone:
	default:
		return "", "", fmt.Errorf("%q is no way to provision: use auto, ext2, nocloud, console or none", wanted)
	}
	return wanted, "asked for", nil
}

func chooseAuto(f Facts) (Method, string, error) {
	known := f.InspectErr == nil
	var ambiguous *AmbiguousRootError
	switch {
	case known && f.Guest.SSH.Any():
		reason := fmt.Sprintf("%s holds the root file system of a system with an SSH server", f.Guest.Root)
		if f.HasUserData && f.Guest.CloudInit {
			reason += "; user-data reaches its cloud-init on a seed disk"
		}
		return MethodExt2, reason, nil
	case errors.As(f.InspectErr, &ambiguous):
		return "", "", fmt.Errorf("choosing how to provision: %w", f.InspectErr)
	case f.HasUserData && known && f.Guest.CloudInit:
		return MethodNoCloud, "user-data was given and the guest has cloud-init", nil
	case f.HasUserData && !known:
		return MethodNoCloud, fmt.Sprintf("user-data was given and nothing is known of the guest (%v)", f.InspectErr), nil
	case known:
		return MethodConsole, fmt.Sprintf("%s holds the root file system of a system without a known SSH server", f.Guest.Root), nil
	}
	return MethodConsole, fmt.Sprintf("the image can't be edited (%v)", f.InspectErr), nil
}
