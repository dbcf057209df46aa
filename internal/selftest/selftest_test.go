package selftest

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/fstest"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestOpen(t *testing.T) {
	for _, tc := range []struct {
		name string
		dir  fstest.MapFS
		want string // in the error; empty: none
	}{
		{"built", fstest.MapFS{imageName: file("12345"), infoName: file(`{"size": 5, "sha256": "ab"}`)}, ""},
		{"not built", fstest.MapFS{"README.md": file("x")}, ErrNotBuilt.Error()},
		{"without a description", fstest.MapFS{imageName: file("12345")}, infoName},
		{"with a broken description", fstest.MapFS{imageName: file("12345"), infoName: file("{")}, infoName},
		{"cut off", fstest.MapFS{imageName: file("123"), infoName: file(`{"size": 5}`)}, "has 3 bytes, and selftest.json says 5"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, info, err := open(tc.dir)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("err = %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(f); err != nil || string(text) != "12345" || info.Size != 5 || info.SHA256 != "ab" {
				t.Errorf("read %q, %+v, %v", text, info, err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEmbedded holds that a binary either has a whole guest or says that it has none.
func TestEmbedded(t *testing.T) {
	f, info, err := Open()
	if errors.Is(err, ErrNotBuilt) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if n, err := io.Copy(io.Discard, f); err != nil || n != int64(info.Size) || n > 24<<20 {
		t.Errorf("read %d bytes of %d, %v; at most 24 MiB are allowed", n, info.Size, err)
	}
}
