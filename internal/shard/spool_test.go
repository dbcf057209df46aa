package shard

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newSpool(t *testing.T) *Spool {
	t.Helper()
	dir := t.TempDir()
	s, err := NewSpool(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("its file has a name: %v, %v", left, err)
	}
	return s
}

func kept(t *testing.T, s *Spool) string {
	t.Helper()
	text, err := io.ReadAll(s.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSpool(t *testing.T) {
	s := newSpool(t)
	for _, part := range []string{"a\n", "", "b"} {
		if n, err := io.WriteString(s, part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
		_ = kept(t, s) // reading moves nothing
	}
	if got := kept(t, s); got != "a\nb" {
		t.Errorf("%q", got)
	}
}

// TestSpoolIsBounded holds that of an output without end the beginning and the
// end are kept, and that it says how much is missing.
func TestSpoolIsBounded(t *testing.T) {
	s := newSpool(t)
	s.limit = 10
	var all strings.Builder
	for i := range 200_000 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		_, _ = io.WriteString(s, line)
	}
	got := kept(t, s)
	head, rest, ok := strings.Cut(got, "\n[")
	if !ok || head != "line 0\nlin" {
		t.Fatalf("it begins with %.60q", got)
	}
	var lost int
	if _, err := fmt.Sscanf(rest, "%d bytes of the output are left out]", &lost); err != nil {
		t.Fatalf("%.60q: %v", rest, err)
	}
	_, tail, _ := strings.Cut(rest, "]\n")
	if want := all.Len() - 10 - lost; len(tail) != want || len(tail) < spoolTail || len(tail) > 2*spoolTail {
		t.Errorf("%d bytes of the end are kept, want %d", len(tail), want)
	}
	if !strings.HasSuffix(all.String(), tail) {
		t.Error("the end is not that of the output")
	}
}

// TestSpoolWithoutRoom holds that a disk that is full ends no script.
func TestSpoolWithoutRoom(t *testing.T) {
	s := newSpool(t)
	_, _ = io.WriteString(s, "first\n")
	_ = s.file.Close()
	if n, err := io.WriteString(s, "second\n"); n != 7 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	if s.err == nil {
		t.Error("it does not know that the file failed")
	}
}

func TestNewSpoolFails(t *testing.T) {
	_, err := NewSpool(filepath.Join(t.TempDir(), "none"))
	if err == nil || !strings.Contains(err.Error(), "making a file for a script's output: ") {
		t.Errorf("err = %v", err)
	}
}
