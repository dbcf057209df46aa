package packed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// roleVariable makes the test program pack a file instead: what memory that takes
// can only be told of a process that does nothing else.
const roleVariable = "HURD_QEMU_ACTION_PACKED_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "" {
		os.Exit(m.Run())
	}
	if err := packAlone(os.Args[1], os.Args[2]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// packAlone packs a file and says what memory it took, in KiB.
func packAlone(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := Pack(context.Background(), dst, src, nil, 0); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if value, is := strings.CutPrefix(line, "VmHWM:"); is {
			fmt.Println(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		}
	}
	return nil
}

// TestMemory packs a disk with 200 MiB of data in a process of its own.
func TestMemory(t *testing.T) {
	parts := map[int64][]byte{}
	piece := noise(PieceSize)
	for i := range int64(200) {
		if i%2 == 0 {
			parts[i*PieceSize] = piece
		} else {
			parts[i*PieceSize] = []byte(strings.Repeat("what compresses ", PieceSize/16))
		}
	}
	src := disk(t, int64(4*units.GiB), parts)
	cmd := exec.Command("/proc/self/exe", src.Name(), src.Name()+".packed")
	cmd.Env = append(os.Environ(), roleVariable+"=pack")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	peak, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("peak memory: %d KiB", peak)
	if limit := 40 << 10; peak > limit && !raceDetector {
		t.Errorf("packing takes %d KiB of memory, more than %d", peak, limit)
	}
}
