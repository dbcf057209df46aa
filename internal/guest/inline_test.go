package guest

import (
	"bytes"
	"os/exec"
	"testing"
)

// FuzzPrinting holds that every shell prints exactly the data.
func FuzzPrinting(f *testing.F) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	f.Add(all)
	f.Add([]byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"))
	f.Add([]byte("-n"))
	f.Add([]byte("it's 100% \\n\n\\'%s\r\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, shell := range [][]string{{"dash"}, {"bash"}, {"busybox", "sh"}} {
			cmd := exec.Command(needed(t, shell[0]), append(shell[1:], "-c", `eval "$(cat)"`)...)
			cmd.Stdin = bytes.NewReader([]byte(printing(data) + "\n"))
			if out, err := cmd.Output(); err != nil || !bytes.Equal(out, data) {
				t.Errorf("%s prints %q, %v; want %q", shell, out, err, data)
			}
		}
	})
}
