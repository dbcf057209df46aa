package results

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// actServer starts act's own artifact server, and ends it with the test.
func actServer(t *testing.T) *Service {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: builds a part of act")
	}
	program := filepath.Join(t.TempDir(), "artifactserver")
	build := exec.Command("go", "build", "-o", program, "./artifactserver")
	build.Dir = filepath.Join("..", "..", "testdata", "act")
	if out, err := build.CombinedOutput(); err != nil {
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatalf("act's artifact server can't be built, and E2E_REQUIRED=1: %v\n%s", err, out)
		}
		t.Skipf("NOT TESTED against act's artifact server, which can't be built: %v\n%s", err, out)
	}
	cmd := exec.Command(program, t.TempDir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // which ends it
		_ = cmd.Wait()
		t.Logf("act's server said:\n%s", &log)
	})
	lines := bufio.NewScanner(stdout)
	var got []string
	for len(got) < 2 && lines.Scan() {
		got = append(got, lines.Text())
	}
	if len(got) < 2 {
		t.Fatal("act's artifact server did not start")
	}
	return &Service{URL: got[0], Token: got[1], Notify: func(note string) { t.Errorf("note: %s", note) }}
}

// fetchArtifact gets an artifact as actions/download-artifact does.
func fetchArtifact(t *testing.T, s *Service, name string) []byte {
	t.Helper()
	ids := map[string]string{"workflow_run_backend_id": "12", "workflow_job_run_backend_id": "34"}
	list, err := s.call(t.Context(), artifactService, "ListArtifacts", ids)
	if err != nil || !strings.Contains(string(list["artifacts"]), name) {
		t.Fatalf("the list is %s, %v", list["artifacts"], err)
	}
	ids["name"] = name
	r, err := s.call(t.Context(), artifactService, "GetSignedArtifactURL", ids)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(r.text("signed_url"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	return data
}

// TestActArtifactServer proves the client against a server that somebody else
// has written: a small artifact, one of several blocks, and an odd name.
func TestActArtifactServer(t *testing.T) {
	s := actServer(t)
	big := noise(2*blockSize + 12345)
	for name, files := range map[string]map[string]string{
		"logs":               {"serial.log": "GNU Mach\n", "d/é ü.txt": "x"},
		"big":                {"core": string(big), "empty": ""},
		"logs + (2) é %41 &": {"a": strings.Repeat("line\n", 1000)},
	} {
		b := &Bundle{}
		for file, text := range files {
			b.AddBytes(file, time.Time{}, []byte(text))
		}
		made, err := (&Artifacts{Service: s}).Upload(t.Context(), Upload{Name: name, Bundle: b, Days: 7})
		if err != nil {
			t.Fatal(err)
		}
		data := fetchArtifact(t, s, name)
		if made.ID == 0 || made.Size != int64(len(data)) || made.SHA256 != sum(data) {
			t.Errorf("made %+v, the server has %d bytes with %s", made, len(data), sum(data))
		}
		if diff := cmp.Diff(files, unzip(t, data)); diff != "" {
			t.Errorf("%s: %.500s", name, diff)
		}
	}
}

// TestActHasNoCache: act knows version 1 only, and we say so.
func TestActHasNoCache(t *testing.T) {
	s := actServer(t)
	w := newWorld(t)
	w.Token = s.Token
	_, err := (&Cache{Service: s}).Find(t.Context(), "k", nil, "v")
	w.fails(err, ErrUnsupported, "cache version 2")
	if err := (&Cache{Service: s}).Writable(); err != nil {
		t.Errorf("act's token: %v", err)
	}
}
