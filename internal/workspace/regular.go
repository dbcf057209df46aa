package workspace

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// regular writes a file with its data. Blocks of zeros become holes.
func (a *applying) regular(at int, temp string, n Node) error {
	if n.Data == nil {
		return errors.New("the source has no data for it")
	}
	fd, err := unix.Openat(at, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	err = a.fill(f, n)
	if err == nil {
		err = unix.Fchmod(fd, uint32(n.Mode.Perm()))
	}
	if n.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && err == nil {
		a.result.Notices.add(n.Path, "its setuid and setgid bits were dropped")
	}
	err = errors.Join(err, f.Close())
	var in *os.PathError
	if errors.As(err, &in) {
		return in.Err // the name is ours and says nothing
	}
	return err
}

func (a *applying) fill(f *os.File, n Node) error {
	if n.Size < 0 {
		return fmt.Errorf("its size is %d", n.Size)
	}
	if err := f.Truncate(int64(n.Size)); err != nil {
		return err
	}
	return n.Data(func(offset units.Bytes, data []byte) error {
		if offset < 0 || offset > n.Size || units.Bytes(len(data)) > n.Size-offset {
			return fmt.Errorf("the source delivers data beyond its end at %d", n.Size)
		}
		return notZero(offset, data, func(offset units.Bytes, data []byte) error {
			size := units.Bytes(len(data))
			if size > a.left {
				return ErrTooMuch
			}
			if _, err := f.WriteAt(data, int64(offset)); err != nil {
				return err
			}
			a.left -= size
			a.result.Bytes += size
			return nil
		})
	})
}

var zeros [holeGrain]byte

// notZero calls visit for the parts of data that are not whole blocks of zeros.
func notZero(offset units.Bytes, data []byte, visit func(units.Bytes, []byte) error) error {
	start := 0
	for at := 0; at < len(data); {
		n := min(holeGrain-int((offset+units.Bytes(at))%holeGrain), len(data)-at)
		if bytes.Equal(data[at:at+n], zeros[:n]) {
			if start < at {
				if err := visit(offset+units.Bytes(start), data[start:at]); err != nil {
					return err
				}
			}
			start = at + n
		}
		at += n
	}
	if start == len(data) {
		return nil
	}
	return visit(offset+units.Bytes(start), data[start:])
}
