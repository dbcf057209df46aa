//go:build bench

package e2e

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// TestBenchParts holds what the benchmark itself computes.
func TestBenchParts(t *testing.T) {
	if got := shellWords(`a  'b c'd '{"e":1}'` + "\n"); !slices.Equal(got, []string{"a", "b cd", `{"e":1}`}) {
		t.Errorf("words %q", got)
	}
	line := `qemu -object memory-backend-file,id=ram,mem-path=/proc/self/fd/8,share=off -chardev socket,id=serial,fd=3 -chardev socket,id=monitor,fd=4 ` +
		`-chardev socket,id=tools,fd=5,server=on -mon chardev=tools,mode=control -add-fd fd=6,set=6 -blockdev '{"filename":"/dev/fdset/6"}' -blockdev '{"filename":"/dev/fdset/7"}'`
	want := []string{
		"qemu", "-object", "memory-backend-file,id=ram,mem-path=/r,share=off", "-chardev", "null,id=serial",
		"-chardev", "socket,id=monitor,server=on,wait=off,path=/d/qmp", "-blockdev", `{"filename":"/base"}`, "-blockdev", `{"filename":"/top"}`,
	}
	if got := bareArgs(line, "/d", "/r", "/base", "/top"); !slices.Equal(got, want) {
		t.Errorf("arguments\n%q, want\n%q", got, want)
	}
	s := spread{3, 1, 2, 10}
	if s.median() != 2.5 || s.String() != "2.50 (1.00–10.00)" || s[0] != 3 {
		t.Errorf("%s of %v", s, []float64(s))
	}
	if low, high := s.interval(); low < 1 || low > 2.5 || high < 2.5 || high > 10 {
		t.Errorf("interval %v to %v", low, high)
	}
	if r := ratios(spread{1, 4}, spread{2, 2}); !slices.Equal(r, spread{0.5, 2}) {
		t.Errorf("ratios %v", r)
	}
	var order []int
	interleave(2, func(i int) { order = append(order, 10*i) }, func(i int) { order = append(order, 10*i+1) })
	if !slices.Equal(order, []int{0, 1, 11, 10}) {
		t.Errorf("order %v", order)
	}
	for d := xml.NewDecoder(strings.NewReader(plotted("<a> & b", "s", []bar{{"<c>", s}}))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
