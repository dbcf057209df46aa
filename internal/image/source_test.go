package image

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/platform"
)

func TestParseSource(t *testing.T) {
	for text, want := range map[string]Source{
		"debian":                        {Kind: KindPreset, Name: "debian"},
		" debian-hurd-20260314\n":       {Kind: KindPreset, Name: "debian-hurd-20260314"},
		"selftest":                      {Kind: KindSelftest, Name: "selftest"},
		"disk.qcow2":                    {Kind: KindPath, Path: "disk.qcow2"},
		"./debian":                      {Kind: KindPath, Path: "debian"},
		"/var/images/hurd":              {Kind: KindPath, Path: "/var/images/hurd"},
		"../x/../disk.IMG":              {Kind: KindPath, Path: "../disk.IMG"},
		"hurd.tar.xz":                   {Kind: KindPath, Path: "hurd.tar.xz"},
		"a/b@c":                         {Kind: KindPath, Path: "a/b@c"},
		"./gnu/hurd@v1:disk.img":        {Kind: KindPath, Path: "gnu/hurd@v1:disk.img"},
		"gnu/hurd@v1.0:disk.tar.xz":     {Kind: KindRelease, Owner: "gnu", Repo: "hurd", Tag: "v1.0", Asset: "disk.tar.xz"},
		"gnu/hurd.img@images/1:d.qcow2": {Kind: KindRelease, Owner: "gnu", Repo: "hurd.img", Tag: "images/1", Asset: "d.qcow2"},
		"artifact:built disk":           {Kind: KindArtifact, Name: "built disk"},
		"https://example.org/d.img?s=1#x": {Kind: KindURL, URL: &url.URL{
			Scheme: "https", Host: "example.org", Path: "/d.img", RawQuery: "s=1",
		}},
		"http://example.org/d.img": {Kind: KindURL, URL: &url.URL{Scheme: "http", Host: "example.org", Path: "/d.img"}},
	} {
		got, err := ParseSource(text)
		if err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("ParseSource(%q) = %+v, %v", text, got, err)
		}
	}
}

func TestParseSourceErrors(t *testing.T) {
	for text, says := range map[string]string{
		"":                                  "use one of debian-hurd-20260314, debian,",
		"debain":                            `"debain" is not an image: use one of`,
		"debian-hurd-20991231":              "selftest, a path such as ./disk.qcow2, an https:// URL, owner/repo@tag:asset, or artifact:name",
		"ftp://example.org/x":               `"ftp://example.org/x" is not an image: of URLs only https:// is supported, and http:// together with a hash`,
		"https:///x":                        "the URL names no host",
		"https://example.org/":              "the URL names no file",
		"https://u:secret@example.org/x":    "a URL with a password would end up in logs",
		"https://example.org/%zz?secret=1":  "it can't be read as a URL",
		"ftp://example.org/x?signed=secret": "only https://",
		"artifact:":                         "after artifact: comes the name",
		"artifact:a/b":                      "after artifact: comes the name",
	} {
		_, err := ParseSource(text)
		if !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseSource(%q): error %v, want %q", text, err, says)
		}
	}
}

// FuzzParseSource holds that what a source is printed as never holds a query,
// and, where nothing was left out, is read as the same source again.
func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"debian", "./disk.img", "https://example.org/d?signed=1", "a/b@c:d", "artifact:x", "selftest", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSource(text)
		if err != nil || s.Kind == KindPath {
			return
		}
		if s.Kind == KindURL && s.URL.RawQuery != "" && strings.Contains(s.String(), "?"+s.URL.RawQuery) {
			t.Fatalf("%q is printed with its query", text)
		}
		again, err := ParseSource(s.String())
		if s.Kind != KindURL && (err != nil || cmp.Diff(s, again) != "") {
			t.Fatalf("%q is printed as %q, which is %+v, %v", text, s, again, err)
		}
	})
}

func TestPrintedWithoutQuery(t *testing.T) {
	s, err := ParseSource("https://example.org/d.img?signature=secret")
	if err != nil || s.String() != "https://example.org/d.img" {
		t.Errorf("printed as %q, %v", s, err)
	}
}

func TestPresets(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Presets() {
		for _, name := range append([]string{p.Name}, p.Aliases...) {
			key := name + " " + string(p.Arch)
			if seen[key] {
				t.Errorf("%s is twice in the table", key)
			}
			seen[key] = true
			if s, err := ParseSource(name); err != nil || s.Kind != KindPreset {
				t.Errorf("ParseSource(%q) = %+v, %v", name, s, err)
			}
		}
		if !strings.Contains(p.File, string(p.Arch)) || !strings.Contains(p.File, strings.TrimPrefix(p.Name, "debian-hurd-")) {
			t.Errorf("%s (%s): the file %s has another date or architecture", p.Name, p.Arch, p.File)
		}
		if p.SHA512 != "" && !sha512Pattern.MatchString(p.SHA512) {
			t.Errorf("%s: %q is no SHA-512", p.Name, p.SHA512)
		}
		if len(p.Dirs) == 0 || p.Download == 0 || p.Allocated == 0 || p.Disk == 0 || p.MinMemory == 0 || p.Root.Partition == 0 {
			t.Errorf("%s (%s) is incomplete", p.Name, p.Arch)
		}
		for _, d := range p.Dirs {
			if !strings.HasSuffix(d, "/hurd-"+string(p.Arch)+"/") {
				t.Errorf("%s: the directory %s is of another architecture", p.Name, d)
			}
		}
	}
}

func TestFindPreset(t *testing.T) {
	for _, tc := range []struct {
		name string
		arch platform.Arch
		file string
		says string
	}{
		{"debian", "", "debian-hurd-amd64-20260314.img.tar.xz", ""},
		{"debian", platform.AMD64, "debian-hurd-amd64-20260314.img.tar.xz", ""},
		{"debian", platform.I386, "debian-hurd-i386-20250807.img.tar.xz", ""},
		{"debian-hurd-20250807", "", "debian-hurd-amd64-20250807.img.tar.xz", ""},
		{"debian-hurd-20260314", platform.I386, "", "debian-hurd-20260314 exists for amd64, not for i386: for that use debian-hurd-20250807"},
		{"hurd", "", "", `"hurd" is not an image preset: use one of`},
	} {
		p, err := FindPreset(tc.name, tc.arch)
		if tc.says == "" && (err != nil || p.File != tc.file) || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("FindPreset(%q, %q) = %+v, %v", tc.name, tc.arch, p, err)
		}
	}
}

func TestCheck(t *testing.T) {
	hash256, hash512 := strings.Repeat("a", 64), strings.Repeat("B", 128)
	for _, tc := range []struct {
		source string
		want   Want
		says   []string // nothing: it is good
	}{
		{"debian", Want{}, nil},
		{"debian", Want{Verify: VerifyPinned}, nil},
		{"selftest", Want{Verify: VerifyPinned}, nil},
		{"debian-hurd-20250807", Want{Verify: VerifyPinned}, []string{"image-verify: pinned needs a hash, and none is known for debian-hurd-20250807"}},
		{"./disk.img", Want{Verify: VerifyPinned, SHA512: hash512}, nil},
		{"./disk.img", Want{Verify: VerifyPinned}, []string{"give image-sha256 or image-sha512"}},
		{"./disk.img", Want{Verify: "maybe"}, []string{`"maybe" is not a value of image-verify: use published, pinned or none`}},
		{"http://example.org/d?secret", Want{}, []string{"http://example.org/d is fetched without encryption: give image-sha256"}},
		{"http://example.org/d", Want{SHA256: hash256}, nil},
		{"http://example.org/d", Want{Signature: "x", Key: "y"}, []string{"without encryption"}},
		{"debian", Want{Arch: platform.I386}, nil},
		{"debian-hurd-20260314", Want{Arch: platform.I386}, []string{"exists for amd64, not for i386"}},
		{"artifact:x", Want{}, []string{"artifact:x needs a token, and a workflow run"}},
		{"artifact:x", Want{Token: "t", Run: Run{Repository: "o/r", ID: 1}}, nil},
		{"debian", Want{Mirror: "ftp://example.org"}, []string{"image-mirror is not an address"}},
		{"debian", Want{Mirror: "http://example.org/"}, nil},
		{"debian-hurd-20250807", Want{Mirror: "http://example.org/"}, nil},
		{"debian-hurd-20250807", Want{Mirror: "http://example.org/", Verify: VerifyNone}, []string{"image-mirror without encryption needs a hash"}},
		{"./d.img", Want{SHA256: hash512, SHA512: "x", Key: "k"}, []string{
			"image-sha256 is not a SHA-256: it has 64 hexadecimal digits", "image-sha512 is not a SHA-512", "image-signature and image-key belong together",
		}},
	} {
		err := mustParse(t, tc.source).Check(tc.want)
		if (err == nil) != (tc.says == nil) {
			t.Errorf("%s with %+v: %v, want %q", tc.source, tc.want, err, tc.says)
			continue
		}
		for _, says := range tc.says {
			if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s with %+v: %v, want %q", tc.source, tc.want, err, says)
			}
		}
	}
}
