package provision

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kdomanski/iso9660"
)

// raw makes an image as the library alone would.
func raw(t *testing.T, files map[string]string) []byte {
	t.Helper()
	w, err := iso9660.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Cleanup(); err != nil {
			t.Error(err)
		}
	}()
	for name, data := range files {
		if err := w.AddFile(strings.NewReader(data), name); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := w.WriteTo(&out, "cidata"); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func ours(t *testing.T, files map[string]string) []byte {
	t.Helper()
	in := map[string][]byte{}
	for name, data := range files {
		in[name] = []byte(data)
	}
	image, err := isoImage(in)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestISODates: the library leaves recording dates zero.
func TestISODates(t *testing.T) {
	files := map[string]string{"user-data": "x"}
	now := time.Now()
	for name, tc := range map[string]struct {
		image []byte
		set   bool
	}{"library": {raw(t, files), false}, "ours": {ours(t, files), true}} {
		iso, err := iso9660.OpenImage(bytes.NewReader(tc.image))
		if err != nil {
			t.Fatal(err)
		}
		root, err := iso.RootDir()
		if err != nil {
			t.Fatal(err)
		}
		children, err := root.GetChildren()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range append(children, root) {
			if age := now.Sub(f.ModTime()).Abs(); (age < time.Hour) != tc.set {
				t.Errorf("%s: %q is of %v", name, f.Name(), f.ModTime())
			}
		}
	}
}

// TestISOPadding: behind a file's end the library repeats what came before.
func TestISOPadding(t *testing.T) {
	files := map[string]string{"user-data": strings.Repeat("SECRET  ", isoSector/8) + "end"}
	if image := raw(t, files); strings.Count(string(image), "SECRET") == isoSector/8 {
		t.Error("the library does not repeat data any more")
	}
	image := ours(t, files)
	if n := strings.Count(string(image), "SECRET"); n != isoSector/8 {
		t.Errorf("the data is there %d times instead of %d", n, isoSector/8)
	}
	if got := readISO(t, image)["user-data"]; got != files["user-data"] {
		t.Errorf("%d bytes", len(got))
	}
}

// TestISONames: the library changes names, we refuse those.
func TestISONames(t *testing.T) {
	for _, name := range []string{"User-Data", "a.b", "my file", strings.Repeat("x", 29), "dir/file", ""} {
		if _, err := isoImage(map[string][]byte{name: nil}); err == nil || !strings.Contains(err.Error(), "is no name that survives ISO 9660") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"User-Data", "my file", strings.Repeat("x", 29)} {
		if _, kept := readISO(t, raw(t, map[string]string{name: "x"}))[name]; kept {
			t.Errorf("the library keeps %q now", name)
		}
	}
	kept := map[string]string{"user-data": "a", "meta-data": "b", "vendor-data": "", "network-config": "c", strings.Repeat("y", 28): "d"}
	if got := readISO(t, ours(t, kept)); fmt.Sprint(got) != fmt.Sprint(kept) {
		t.Errorf("%q", got)
	}
}

// TestISOFullDirectory: a directory whose records fill a sector exactly is
// written one sector too long, and all data lies elsewhere than it says. We
// stay far below.
func TestISOFullDirectory(t *testing.T) {
	files := map[string]string{}
	// Records of 33 + 9 + 2 bytes: 45 of them and the two of 34 fill 2048.
	for i := range 45 {
		files[fmt.Sprintf("f%08d", i)] = fmt.Sprintf("content %d", i)
	}
	image := raw(t, files)
	wrong := 0
	for name, data := range readISO(t, image) {
		if data != files[name] {
			wrong++
		}
	}
	if wrong == 0 {
		t.Error("the library does it right now")
	}
	in := map[string][]byte{}
	for name := range files {
		in[name] = nil
	}
	if _, err := isoImage(in); err == nil || !strings.Contains(err.Error(), "45 files are more than the 16 that fit") {
		t.Errorf("%v", err)
	}
	if err := mendISO(image, map[string][]byte{"f00000001": []byte("content 1")}, time.Now()); err == nil {
		t.Error("the shifted data was not noticed")
	}
}

func TestMendISORefuses(t *testing.T) {
	files := map[string][]byte{"user-data": []byte("x")}
	good := ours(t, map[string]string{"user-data": "x"})
	for name, spoil := range map[string]func([]byte) []byte{
		"short":        func(b []byte) []byte { return b[:isoSector] },
		"no file":      func(b []byte) []byte { clear(b[18*isoSector+68:]); return b },
		"other data":   func(b []byte) []byte { b[19*isoSector] = 'y'; return b },
		"far away":     func(b []byte) []byte { b[isoRootRecord+4] = 0xff; return b },
		"large":        func(b []byte) []byte { b[isoRootRecord+13] = 0xff; return b },
		"short record": func(b []byte) []byte { b[18*isoSector] = 3; return b },
	} {
		if err := mendISO(spoil(bytes.Clone(good)), files, time.Now()); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if err := mendISO(bytes.Clone(good), files, time.Now()); err != nil {
		t.Errorf("the good one: %v", err)
	}
}
