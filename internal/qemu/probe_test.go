package qemu

import (
	"strings"
	"testing"
)

// TestAnswersQuitLast holds that QEMU is told to quit when the last reply is
// complete, once, and not before: whatever the chunks are.
func TestAnswersQuitLast(t *testing.T) {
	output := "{\"return\": {}}\r\n" + strings.Repeat("{\"return\": [{\"name\": \"\\\"id\\\"\"}], \"id\": \"devices\"}\r\n", 50) +
		"{\"return\": [], " + lastAnswer + "}\r\n"
	for size := 1; size < 64; size++ {
		var written, quits int
		a := &answers{}
		a.last = func() error {
			quits++
			if written < len(output)-size {
				t.Errorf("chunks of %d: quit after %d of %d bytes", size, written, len(output))
			}
			return nil
		}
		for rest := output + "{\"timestamp\": 1, \"event\": \"SHUTDOWN\"}\r\n"; rest != ""; {
			n := min(size, len(rest))
			if m, err := a.Write([]byte(rest[:n])); m != n || err != nil {
				t.Fatalf("Write = %d, %v", m, err)
			}
			written, rest = written+n, rest[n:]
		}
		if quits != 1 {
			t.Errorf("chunks of %d: told %d times to quit", size, quits)
		}
	}
}
