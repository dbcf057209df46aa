package acttest

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// artifactFiles are those of the artifact of job results, with a text that each
// must hold.
var artifactFiles = map[string]string{
	"hurd/serial.log":       "on the console it is ***.",
	"hurd/qemu.log":         "qemu-system-x86_64",
	"hurd/report.html":      "</html>",
	"hurd/timings.json":     `"phase": "Copy back"`,
	"hurd/metrics.json":     `"result": "script-failed"`,
	"hurd/metrics.prom":     "# EOF\n",
	"results/new/deep/file": "made in the guest\n",
	"results/new/link":      "made in the guest\n",
	"guest/etc/os-release":  "NAME=",
}

// artifactWhole looks at what act's artifact server has kept in dir after a run:
// one artifact, with the logs and the files that were asked for.
func artifactWhole(w workflow, dir string) (found []finding) {
	kept, err := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
	if err != nil || len(kept) != 1 || !strings.HasSuffix(kept[0], "/results/results.zip") {
		return []finding{fmt.Sprintf("the artifacts are %q, not results/results.zip alone (%v)", kept, err)}
	}
	files, err := unzip(kept[0])
	if err != nil {
		return []finding{err.Error()}
	}
	for name, text := range artifactFiles {
		content, ok := files[name]
		if !ok || !strings.Contains(content, text) {
			found = append(found, fmt.Sprintf("%s lacks %q (there: %v, %d bytes)", name, text, ok, len(content)))
		}
	}
	for name, content := range files {
		if _, ok := artifactFiles[name]; !ok {
			found = append(found, "nobody asked for "+name)
		}
		for _, s := range token(w) {
			if s == "" || strings.Contains(content, s) {
				found = append(found, name+" holds the token")
			}
		}
	}
	if text := files["hurd/timings.json"]; !json.Valid([]byte(text)) {
		found = append(found, "hurd/timings.json is not JSON")
	}
	slices.Sort(found)
	return found
}

func unzip(path string) (map[string]string, error) {
	r, err := zip.OpenReader(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	defer func() { _ = r.Close() }() // it was only read
	files := map[string]string{}
	for _, f := range r.File {
		content, err := fs.ReadFile(r, f.Name)
		if err != nil {
			return nil, fmt.Errorf("reading %s of %s: %w", f.Name, path, err)
		}
		files[f.Name] = string(content)
	}
	return files, nil
}

// TestArtifactCheckFails holds that the check of the artifact can fail.
func TestArtifactCheckFails(t *testing.T) {
	w, _ := readWorkflow(t, "e2e.yml")
	secret := token(w)
	tests := []struct {
		name string
		edit func(files map[string]string)
		want string
	}{
		{"good", func(map[string]string) {}, ""},
		{"a file is missing", func(f map[string]string) { delete(f, "guest/etc/os-release") }, `guest/etc/os-release lacks "NAME=" (there: false, 0 bytes)`},
		{"a file is empty", func(f map[string]string) { f["results/new/link"] = "" }, `results/new/link lacks "made in the guest\n" (there: true, 0 bytes)`},
		{"a file too many", func(f map[string]string) { f["results/new/left-out.tmp"] = "" }, "nobody asked for results/new/left-out.tmp"},
		{"the token", func(f map[string]string) { f["hurd/serial.log"] += secret[0] }, "hurd/serial.log holds the token"},
		{"the token in base64", func(f map[string]string) { f["hurd/report.html"] += secret[1] }, "hurd/report.html holds the token"},
		{"half a file", func(f map[string]string) { f["hurd/timings.json"] += "]" }, "hurd/timings.json is not JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{}
			for name, text := range artifactFiles {
				files[name] = text
			}
			files["hurd/timings.json"] = `[{"phase": "Copy back"}]`
			tt.edit(files)
			got := strings.Join(artifactWhole(w, keepZip(t, "results", files)), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
	for name, dir := range map[string]string{"none": t.TempDir(), "another": keepZip(t, "other", nil), "not whole": keepZip(t, "results", nil, "cut off")} {
		if got := artifactWhole(w, dir); len(got) == 0 {
			t.Errorf("%s: nothing found", name)
		}
	}
}

// keepZip keeps an artifact as act's server does, or something else in its place.
func keepZip(t *testing.T, name string, files map[string]string, instead ...string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "1", name, name+".zip")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		f, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, text := range instead {
		b.Reset()
		b.WriteString(text)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
