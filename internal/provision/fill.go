package provision

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

// ErrOutdated says that an image was prepared by another version of this program.
var ErrOutdated = errors.New("the image was prepared by another version")

// Fill writes the keys of one run into the slots of a prepared image, in a
// qcow2 overlay on it: one qemu-io process that writes and reads back. The
// image itself is not touched. The keys are in memory only, never in arguments
// or on a disk other than the overlay.
func Fill(ctx context.Context, overlay string, prepared Prepared, keys Keys) error {
	if prepared.Version != Version {
		return fmt.Errorf("filling %s: %w (%d, this is %d)", overlay, ErrOutdated, prepared.Version, Version)
	}
	var writes []blockWrite
	for _, slot := range prepared.Slots {
		data, err := keys.content(slot)
		if err != nil {
			return fmt.Errorf("filling %s: %w", overlay, err)
		}
		writes = append(writes, split(slot, data)...)
	}
	if err := writeBlocks(ctx, overlay, writes); err != nil {
		return fmt.Errorf("filling %s: %w", overlay, err)
	}
	return nil
}

// FileContent is the beginning of a file in the guest.
type FileContent struct {
	File string
	Data []byte
}

// Contents is what Fill writes, by files: for a guest that runs already, whose
// keys are to be replaced.
func Contents(prepared Prepared, keys Keys) ([]FileContent, error) {
	var contents []FileContent
	for _, slot := range prepared.Slots {
		data, err := keys.content(slot)
		if err != nil {
			return nil, fmt.Errorf("writing keys: %w", err)
		}
		contents = append(contents, FileContent{slot.File, data})
	}
	return contents, nil
}

// content is what belongs into a slot.
func (k Keys) content(slot Slot) ([]byte, error) {
	if len(k.Host) != ed25519.PrivateKeySize {
		return nil, errors.New("the host key is no ed25519 key")
	}
	var data []byte
	var err error
	switch slot.Name {
	case SlotAuthorizedKeys:
		data, err = slack(k.Authorized)
	case SlotOpenSSHKey:
		data, err = opensshKey(k.Host)
	case SlotDropbearKey:
		data = dropbearKey(k.Host)
	default:
		err = fmt.Errorf("unknown slot %q", slot.Name)
	}
	if err == nil && units.Bytes(len(data)) != slot.Size {
		err = fmt.Errorf("the %s has %d bytes instead of %d", slot.Name, len(data), slot.Size)
	}
	return data, err
}

// sector is the unit in which blocks are written: what lies behind the end of
// a file in its last block is zeros anyhow.
const sector = 512

// blockWrite is a whole number of sectors.
type blockWrite struct {
	offset units.Bytes
	data   []byte
}

// split cuts the content of a slot into the pieces that it lies in.
func split(slot Slot, data []byte) []blockWrite {
	var writes []blockWrite
	for _, piece := range slot.Pieces {
		n := min(int(piece.Length), len(data))
		padded := make([]byte, (n+sector-1)/sector*sector)
		copy(padded, data[:n])
		writes = append(writes, blockWrite{piece.Offset, padded})
		data = data[n:]
	}
	return writes
}

// writeBlocks writes and reads back.
func writeBlocks(ctx context.Context, overlay string, writes []blockWrite) error {
	abs, err := filepath.Abs(overlay) // qemu-io takes the part before a ':' for a protocol
	if err != nil {
		return err
	}
	args := []string{"-f", "qcow2"}
	var files []*os.File
	for i, w := range writes {
		file, err := memoryFile(w.data)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // it lives in memory only
		files = append(files, file)
		args = append(args, "-c", fmt.Sprintf("write -s /proc/self/fd/%d %d %d", 3+i, w.offset, len(w.data)))
	}
	args = append(args, "-c", "flush")
	for _, w := range writes {
		args = append(args, "-c", fmt.Sprintf("read -v %d %d", w.offset, len(w.data)))
	}
	cmd := process.Command(ctx, "qemu-io", append(args, abs)...)
	var stdout bytes.Buffer
	cmd.ExtraFiles, cmd.Stdout = files, &stdout
	if err := process.Run(ctx, cmd); err != nil {
		return err
	}
	return verifyBlocks(stdout.Bytes(), writes)
}

// memoryFile holds data for a child process without a name on any disk.
func memoryFile(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("keys", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), "keys")
	if _, err := file.Write(data); err != nil {
		_ = file.Close() // the write's error says more
		return nil, err
	}
	return file, nil
}

// dumpLine is a line of "read -v": offset, up to 16 bytes in hexadecimal, the
// same as text.
var dumpLine = regexp.MustCompile(`^([0-9a-f]{8,16}):  ((?:[0-9a-f]{2} ){1,16})`)

// verifyBlocks compares what qemu-io read back with what was written.
func verifyBlocks(output []byte, writes []blockWrite) error {
	got := map[uint64]byte{}
	for line := range strings.Lines(string(output)) {
		m := dumpLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		at, err := strconv.ParseUint(m[1], 16, 64)
		if err != nil {
			return err
		}
		row, err := hex.DecodeString(strings.ReplaceAll(m[2], " ", ""))
		if err != nil {
			return err
		}
		for i, b := range row {
			got[at+uint64(i)] = b
		}
	}
	for _, w := range writes {
		for i, want := range w.data {
			if b, ok := got[uint64(w.offset)+uint64(i)]; !ok || b != want {
				return fmt.Errorf("the bytes at %d are not what was written: %w", w.offset, errReadBack)
			}
		}
	}
	return nil
}

var errReadBack = errors.New("reading back failed")
