package cloudinit

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sifted gives what is left of output that comes in pieces of some size.
func sifted(output string, size int) (string, []int) {
	var out bytes.Buffer
	var statuses []int
	m := NewMarks(mark, &out, func(status int) { statuses = append(statuses, status) })
	for chunk := range slices.Chunk([]byte(output), size) {
		if n, err := m.Write(chunk); n != len(chunk) || err != nil {
			panic(err)
		}
	}
	if err := m.Flush(); err != nil {
		panic(err)
	}
	return out.String(), statuses
}

func TestMarks(t *testing.T) {
	for name, tc := range map[string]struct {
		output, want string
		statuses     []int
	}{
		"nothing":             {"", "", nil},
		"no mark":             {"a\nb", "a\nb", nil},
		"quiet commands":      {"MARK 0\nMARK 1\n", "", []int{0, 1}},
		"output between":      {"a\nMARK 0\nb\n\nMARK 127\nc\n", "a\nb\n\nc\n", []int{0, 127}},
		"a line without end":  {"aMARK 0\nMARK 0\n", "a\n", []int{0, 0}},
		"no status":           {"MARK x\nMARK 256\nMARK -1\nMARK\n", "MARK x\nMARK 256\nMARK -1\nMARK\n", nil},
		"something behind it": {"MARK 0 0\n", "MARK 0 0\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 1000} {
				out, statuses := sifted(tc.output, size)
				if d := cmp.Diff(tc.want, out) + cmp.Diff(tc.statuses, statuses); d != "" {
					t.Errorf("in pieces of %d:\n%s", size, d)
				}
			}
		})
	}
}

func TestMarksBoundsALine(t *testing.T) {
	var out bytes.Buffer
	m := NewMarks(mark, &out, func(int) {})
	if n, err := m.Write(bytes.Repeat([]byte("x"), 3*longLine+5)); n != 3*longLine+5 || err != nil {
		t.Fatal(n, err)
	}
	if out.Len() != 3*longLine || len(m.line) != 5 {
		t.Errorf("%d bytes passed on, %d kept", out.Len(), len(m.line))
	}
	full := errors.New("full")
	m = NewMarks(mark, failing{full}, func(int) {})
	if _, err := m.Write([]byte("a\n")); !errors.Is(err, full) {
		t.Errorf("err = %v", err)
	}
}

type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f.error }

// FuzzMarks holds that any division of the output gives the same, and that
// output without marks comes through as it is.
func FuzzMarks(f *testing.F) {
	f.Add("aMARK 0\nb", uint8(3))
	f.Add(strings.Repeat("MARK 1", 20), uint8(7))
	f.Fuzz(func(t *testing.T, output string, size uint8) {
		whole, statuses := sifted(output, max(len(output), 1))
		pieces, again := sifted(output, int(size)+1)
		if whole != pieces || !slices.Equal(statuses, again) {
			t.Errorf("%q, %v in one piece; %q, %v in pieces of %d", whole, statuses, pieces, again, int(size)+1)
		}
		if !strings.Contains(output, mark) && whole != output {
			t.Errorf("%q became %q", output, whole)
		}
	})
}
