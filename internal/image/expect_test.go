package image

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindHash(t *testing.T) {
	a, b := strings.Repeat("a", 128), strings.Repeat("b", 128)
	for name, tc := range map[string]struct {
		list, file string
		want       string
	}{
		"text":               {a + "  disk.img\n", "disk.img", a},
		"binary":             {a + " *disk.img\n", "disk.img", a},
		"BSD":                {"SHA512 (disk.img) = " + a + "\n", "disk.img", a},
		"upper case":         {strings.ToUpper(a) + "  disk.img\n", "disk.img", a},
		"with a directory":   {a + "  ./disk.img\n", "disk.img", a},
		"CRLF":               {a + "  disk.img\r\n" + b + "  x\r\n", "disk.img", a},
		"no end of line":     {b + "  x\n" + a + "  disk.img", "disk.img", a},
		"a name with spaces": {a + "  my disk.img\n", "my disk.img", a},
		"other":              {a + "  disk.img.sig\n" + b + "  old/disk.img\n", "disk.img", ""},
		"SHA-256 in it":      {a[:64] + "  disk.img\n", "disk.img", ""},
		"no hexadecimal":     {strings.Repeat("g", 128) + "  disk.img\n", "disk.img", ""},
		"empty":              {"", "disk.img", ""},
		"no hash":            {"disk.img", "disk.img", ""},
	} {
		got, ok := findHash(tc.list, tc.file, 128)
		if got != tc.want || ok != (tc.want != "") {
			t.Errorf("%s: %q, %t", name, got, ok)
		}
	}
}

// FuzzFindHash holds that what is found is a hash in lower case that is in the list.
func FuzzFindHash(f *testing.F) {
	a := strings.Repeat("a", 64)
	for _, s := range []string{a + "  x\n", "SHA256 (x) = " + a, a + " *./x", "x", ""} {
		f.Add(s, "x")
	}
	f.Fuzz(func(t *testing.T, list, file string) {
		hash, ok := findHash(list, file, 64)
		if !ok {
			return
		}
		if _, err := hex.DecodeString(hash); err != nil || len(hash) != 64 || hash != strings.ToLower(hash) || !strings.Contains(strings.ToLower(list), hash) {
			t.Fatalf("found %q", hash)
		}
	})
}

func TestPins(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(s.Dir, pinsDir)
	path := filepath.Join(dir, hashName("key")+".json")
	good := pin{File: "disk.img", SHA512: strings.Repeat("a", 128), List: "https://example.org/SHA512SUMS", Since: ticking()()}
	if err := s.writePin(path, good); err != nil {
		t.Fatal(err)
	}
	var e expectation
	if err := s.published(t.Context(), &e, "key", "disk.img", nil); err != nil {
		t.Fatal(err)
	}
	if got := e.verification().String(); got != "published (https://example.org/SHA512SUMS, pinned 2026-03-20)" || e.sha512 != good.SHA512 {
		t.Errorf("%s, %+v", got, e)
	}
	for text, says := range map[string]string{
		"{":                   "unexpected end of JSON input",
		`{"SHA512":"abc"}`:    " holds no hash",
		`{"File":"disk.img"}`: "the image store is damaged",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.published(t.Context(), &e, "key", "disk.img", nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want %q", text, err, says)
		}
	}
	s.Dir = filepath.Join(path, "store") // below a file
	if err := s.writePin(path, good); err == nil || !strings.Contains(err.Error(), "keeping the published hash") {
		t.Errorf("a store that can't be written: %v", err)
	}
}

func TestExpectation(t *testing.T) {
	h256, h512 := sha(nil), sha2(nil)
	for _, tc := range []struct {
		e    expectation
		says string
		how  string
	}{
		{expectation{}, "", "none"},
		{expectation{sums: sums{sha256: h256}, how: Given}, "", "given (SHA-256 " + h256[:16] + "...)"},
		{expectation{sums: sums{h256, h512}, how: Pinned}, "", "pinned (SHA-512 " + h512[:16] + "...)"},
		{expectation{sums: sums{sha256: sha2(nil)[:64]}, how: Given}, "its SHA-256 is " + h256 + ", wanted is ", ""},
		{expectation{sums: sums{sha512: h256}, how: Pinned}, "its SHA-512 is " + h512 + ", known to us is ", ""},
		{expectation{sums: sums{sha512: h256}, how: Published, detail: "a list"}, "by a list it is ", ""},
	} {
		err := tc.e.check(sums{h256, h512})
		if tc.says == "" && (err != nil || tc.e.verification().String() != tc.how || !tc.e.matches(sums{h256, h512})) {
			t.Errorf("%+v: %v, %s", tc.e, err, tc.e.verification())
		}
		if tc.says != "" && (!errors.Is(err, ErrHash) || !strings.Contains(err.Error(), tc.says) || tc.e.matches(sums{h256, h512})) {
			t.Errorf("%+v: %v, want %q", tc.e, err, tc.says)
		}
	}
}
