// Package snapshot knows when a saved machine may be reused, how it is packed
// and where it is kept. A saved machine is three files that belong together:
// the state of its devices, its memory, and the overlay of its disk; a manifest
// says what they are and what they contain. Files are sparse here from end to
// end: zeros are neither kept, nor compared, nor sent.
package snapshot

import "errors"

// Format is the version of the manifest, of the sums in it and of the packed
// stream. Entries of another version are not read.
const Format = 1

// The files of a saved machine.
const (
	State = "state"      // QEMU's migration stream: the devices
	RAM   = "ram"        // the guest's memory, exactly as large as it
	Disk  = "disk.qcow2" // the overlay of the first disk
)

// names lists the files in the order in which they are packed.
var names = []string{State, RAM, Disk}

var (
	// ErrMiss says that a store has no entry of a key.
	ErrMiss = errors.New("no such saved machine")

	// ErrIncompatible says that a saved machine is not the one that is wanted,
	// or was written by a version of this program that is too different.
	ErrIncompatible = errors.New("the saved machine does not fit")

	// ErrDamaged says that an entry or a packed stream is not what was written.
	ErrDamaged = errors.New("the saved machine is damaged")

	// ErrInUse says that another run uses an entry.
	ErrInUse = errors.New("in use by another run")

	// ErrSize says that an entry is larger than is allowed, or than there is space for.
	ErrSize = errors.New("the saved machine is too large")
)
