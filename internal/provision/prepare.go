package provision

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Options say what Prepare shall do besides making room for keys.
type Options struct {
	User  string // who logs in over SSH; empty means root
	Hints Hints
	// Console makes the default boot entry use the serial line.
	Console bool
	// Menu keeps the boot loader's menu for keys that are pressed in it; see GrubOptions.
	Menu bool
	// DiskSize is what the image grows to; 0 or less than its size leaves it.
	DiskSize units.Bytes
	// AptSnapshot is a moment of snapshot.debian.org, as in 20260314T000000Z,
	// from which the guest's apt takes its packages; empty leaves apt alone.
	AptSnapshot string
}

// Prepared is an image that is ready to be filled with keys. It is written as
// JSON beside the image; Version tells whether it can still be used.
type Prepared struct {
	Version  int
	Guest    Guest
	User     User
	Slots    []Slot
	Changes  []string // what was done, for people
	Warnings []string // what may go wrong, for people
}

// SlotName says what belongs into a slot.
type SlotName string

// The slots that an image can have.
const (
	SlotAuthorizedKeys SlotName = "authorized_keys"
	SlotOpenSSHKey     SlotName = "openssh host key"
	SlotDropbearKey    SlotName = "dropbear host key"
)

// Slot is a place in the image that Fill rewrites for every run.
type Slot struct {
	Name   SlotName
	File   string // in the guest
	Size   units.Bytes
	Pieces []ext2.Extent // where its bytes lie in the image, in order; each begins a block
}

// Prepare edits a raw image for all runs to come: it repairs a file system
// that was not unmounted cleanly, configures the SSH server, makes room for the
// keys and, if wanted, turns on the serial console and grows the disk. The
// result is proven by e2fsck. Preparing an image again changes nothing, except
// that it removes the keys of a run.
//
// The errors are those of Inspect, a *NoUserError, and those of package ext2.
// After an error the image is in an undefined state.
func Prepare(ctx context.Context, image string, o Options) (Prepared, error) {
	if o.User == "" {
		o.User = "root"
	}
	root, _, err := findRoot(ctx, image, o.Hints)
	if err != nil {
		return Prepared{}, fmt.Errorf("preparing %w", err)
	}
	p := &preparation{Options: o, image: image, root: root}
	defer func() { _ = p.root.Close() }() // opened for reading
	if err := p.run(ctx); err != nil {
		return Prepared{}, fmt.Errorf("preparing %s: %w", image, err)
	}
	return p.out, nil
}

// preparation is the state of one call of Prepare.
type preparation struct {
	Options
	image string
	root  *ext2.FS
	batch *ext2.Batch
	out   Prepared
}

func (p *preparation) run(ctx context.Context) error {
	if err := p.repair(ctx); err != nil {
		return err
	}
	if err := p.grow(ctx); err != nil {
		return err
	}
	// Only now, for what a repair may have brought back.
	guest, err := Inspect(ctx, p.image, Hints{Partition: p.root.Partition().Number})
	if err != nil {
		return err
	}
	user, err := guest.User(p.User)
	if err != nil {
		return err
	}
	p.out.Version, p.out.Guest, p.out.User = Version, guest, user
	p.batch = p.root.Begin()
	for _, edit := range []func() error{p.keys, p.sshd, p.dropbear, p.accounts, p.console, p.apt} {
		if err := edit(); err != nil {
			return err
		}
	}
	if err := p.batch.Commit(ctx); err != nil {
		return err
	}
	if err := p.locate(); err != nil {
		return err
	}
	return p.root.Check(ctx)
}

func (p *preparation) changed(format string, args ...any) {
	p.out.Changes = append(p.out.Changes, printable(fmt.Sprintf(format, args...)))
}

func (p *preparation) warn(format string, args ...any) {
	p.out.Warnings = append(p.out.Warnings, printable(fmt.Sprintf(format, args...)))
}

// printable makes text that an image can decide upon fit for a line of a log.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func (p *preparation) repair(ctx context.Context) error {
	sb, err := p.root.Superblock()
	if err != nil {
		return err
	}
	repairs, err := p.root.Repair(ctx)
	if err != nil {
		return err
	}
	if !sb.Clean {
		p.changed("repaired the root file system, which was not unmounted cleanly")
	} else if len(repairs) > 0 {
		p.changed("repaired the root file system, which was marked clean but was not")
	}
	const shown = 10
	for i, line := range repairs {
		if i == shown {
			p.changed("e2fsck: and %d more lines", len(repairs)-shown)
			break
		}
		p.changed("e2fsck: %s", line)
	}
	return nil
}

func (p *preparation) grow(ctx context.Context) error {
	if p.DiskSize == 0 {
		return nil
	}
	before := p.root.Partition()
	after, err := ext2.Grow(ctx, p.image, before, p.DiskSize)
	if err != nil || after == before {
		return err
	}
	if err := p.root.Close(); err != nil {
		return err
	}
	root, err := ext2.Open(p.image, after)
	if err != nil {
		return err
	}
	p.root = root
	p.changed("grew the root partition from %s to %s", before.Size.Human(), after.Size.Human())
	return nil
}

// file makes a file hold data; one that exists keeps its owner and mode
// unless exact is set. It tells whether anything had to be done.
func (p *preparation) file(name string, data []byte, attr ext2.Attr, exact bool) (bool, error) {
	info, err := p.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, p.batch.WriteFile(name, data, attr)
	}
	if err != nil {
		return false, err
	}
	same := info.Mode.Perm() == attr.Mode && info.UID == attr.UID && info.GID == attr.GID
	if !exact {
		attr, same = ext2.Attr{Mode: info.Mode, UID: info.UID, GID: info.GID}, true
	}
	if same && info.Mode.IsRegular() && info.Size == units.Bytes(len(data)) {
		old, err := p.root.ReadFile(name)
		if err != nil || bytes.Equal(old, data) {
			return false, err
		}
	}
	return true, p.batch.WriteFile(name, data, attr)
}

// read returns nothing for a missing file.
func (p *preparation) read(name string) ([]byte, error) {
	data, err := p.root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// locate finds out where the slots are, now that the files exist.
func (p *preparation) locate() error {
	for i := range p.out.Slots {
		slot := &p.out.Slots[i]
		extents, err := p.root.Blocks(slot.File)
		if err != nil {
			return err
		}
		left := slot.Size
		for _, e := range extents {
			e.Length = min(e.Length, left)
			if left -= e.Length; e.Length > 0 {
				slot.Pieces = append(slot.Pieces, e)
			}
		}
		if left != 0 {
			return fmt.Errorf("%s has no room for %s", slot.File, slot.Name)
		}
	}
	return nil
}

// hostKeySize is the size of every host key in OpenSSH's format.
func hostKeySize() (int, error) {
	pem, err := opensshKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	return len(pem), err
}
