package lifecycle

import (
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/units"
)

// busyRestoreTime bounds a restore beside other guests, which takes its part of
// their time: four at once on two busy cores took up to 6 s each.
const busyRestoreTime = 30 * time.Second

// restoreLimit bounds a restore until a command has run over SSH.
func (r *run) restoreLimit() time.Duration {
	if r.Beside {
		return busyRestoreTime
	}
	return restoreTime
}

// Room is for how many guests at once this host has memory.
type Room struct {
	Memory units.Bytes // of one guest
	Total  units.Bytes // of the host, or of the container we run in
	Free   units.Bytes // of which can be used without swapping
}

// Most is how many guests there can be at all; at least 1, since whether one
// has room is for the run to say.
func (r Room) Most() int { return max(1, int(r.Total/r.Memory)) }

// Now is how many there can be without swapping; at least 1.
func (r Room) Now() int { return max(1, int(r.Free/r.Memory)) }

// RoomFor looks for how many guests of a configuration there is memory. Restored
// guests share what they do not write to, but a script may write to all of it.
func RoomFor(c config.Config) (Room, error) { return roomFor(os.DirFS("/"), c) }

func roomFor(root fs.FS, c config.Config) (Room, error) {
	host, err := qemu.HostMemory(root)
	if err == nil && c.Memory <= 0 {
		err = fmt.Errorf("the guest has no memory: %d", c.Memory)
	}
	return Room{Memory: c.Memory, Total: host.Total, Free: host.Available}, err
}
