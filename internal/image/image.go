// Package image turns what a user names as an image (a preset, a path, a URL,
// a release asset, an artifact) into a verified disk image on which a run can
// put its throwaway overlay.
//
// A Store keeps what was fetched and what was prepared from it:
//
//	images/DIGEST/     one disk image as its publisher made it, and a manifest
//	prepared/KEY/      a raw disk made from an image and edited once, and a manifest
//	downloads/         what was received of a file so far, to go on with after an interruption
//	pins/              published hashes as they were when first seen
//	locks/, tmp/       who uses what, and what is being made
//
// Nothing in images and prepared changes once it is there: it is made in tmp
// and renamed. Any number of processes may use one store at the same time.
package image

import (
	"io"
	"strings"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Format is a disk image format in QEMU's names.
type Format = disk.Format

// The formats that a Base may have.
const (
	Raw   = disk.Raw
	QCOW2 = disk.QCOW2
	VMDK  = disk.VMDK
	VDI   = disk.VDI
)

// Base is a disk image that nobody writes to while it is in use. Close it when
// the run is over: until then it is not pruned.
type Base struct {
	Path        string // absolute
	Format      Format
	Digest      string // "sha256:..." of the file as it was published; "stat:..." (path, size, times, inode) of a local disk image without a given hash
	VirtualSize units.Bytes
	Origin      string // where it came from, for people; without credentials or queries
	Verified    Verification
	Preset      *Preset // the table's entry, nil for any other image
	Reused      bool    // it was in the store already

	sums  sums // of the file as it was published, as far as they are known
	lease io.Closer
}

// Close ends the use of the image. It may be called more than once.
func (b Base) Close() error {
	if b.lease == nil {
		return nil
	}
	return b.lease.Close()
}

// How says what an image's contents were compared with.
type How string

// The kinds of verification, from the strongest to none.
const (
	Signed    How = "signature" // a detached OpenPGP signature by a given key
	Given     How = "given"     // a hash that the user gave
	Pinned    How = "pinned"    // a hash that this program knows
	Published How = "published" // the publisher's list of hashes, over https
	Embedded  How = "embedded"  // it is part of this program
	Local     How = "local"     // the user's own file, not compared with anything
	Nothing   How = "none"      // it was fetched and not compared with anything
)

// Verification says how an image was verified.
type Verification struct {
	How    How
	Detail string // for people: the hash's beginning, the list's address, the key's fingerprint
}

// String is one line for people: "published (SHA512SUMS of ..., pinned since 2026-03-20)".
func (v Verification) String() string {
	if v.Detail == "" {
		return string(v.How)
	}
	return string(v.How) + " (" + v.Detail + ")"
}

// Error says what failed with which image, and what to do about it.
type Error struct {
	Op     string // what was being done, as in "fetching"
	Source string // the image, file or address; without credentials or queries
	Err    error
	Hint   string // what to do, a clause of its own; "" when Err says it
}

// Error is one line: "fetching URL: cause; hint".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op + " " + e.Source + ": " + e.Err.Error())
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }
