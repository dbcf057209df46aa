package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/metrics"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/units"
)

// numbers reads the metrics of a run that was published.
func numbers(t *testing.T, r *run) (doc metrics.Run, text string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Host.Workspace, r.result.Metrics))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	prom, err := os.ReadFile(filepath.Join(r.logs.dir, openMetricsName))
	if err != nil {
		t.Fatal(err)
	}
	return doc, string(prom)
}

// TestMetricsOfAFailure: a run that never had a machine has numbers all the
// same, and none that it does not know.
func TestMetricsOfAFailure(t *testing.T) {
	r, _ := published(t)
	r.config.Image = "debian"
	r.result = Result{Kind: ImageFailed, ExitCode: 125}
	r.phase("Image", r.began, "", errors.New("x"))
	r.publish(t.Context(), fail(ImageFailed, "No image", errors.New("x")))
	doc, text := numbers(t, r)
	if doc.Schema != metrics.Schema || doc.Result != "image-failed" || doc.ExitCode != 125 || len(doc.Steps) != 1 || !doc.Steps[0].Failed || doc.Image.Name != "debian" {
		t.Errorf("%+v", doc)
	}
	if doc.Boot != nil || doc.Usage != nil || doc.Network != nil || doc.Machine != nil || doc.Files != nil || doc.Benchmark != nil || doc.Script != nil || doc.Action == nil || doc.Action.Peak < units.MiB {
		t.Errorf("%+v", doc)
	}
	if !strings.HasSuffix(text, "# EOF\n") || !strings.Contains(text, `result="image-failed"`) {
		t.Errorf("the text is\n%s", text)
	}
	if r.result.Metrics != ".hurd/run-1/metrics.json" {
		t.Errorf("the output is %q", r.result.Metrics)
	}
}

// TestMetricsOfAMachine: what was known of a machine before it was gone is in
// both documents and in the report. The last machine counts, but for the peak.
func TestMetricsOfAMachine(t *testing.T) {
	const secret = "s3cret-value"
	r, summary := published(t)
	r.mask.Mask(secret)
	r.result = Result{Kind: BootFailed, ExitCode: 125, Accel: "tcg", Attempts: 2, Uname: "GNU " + secret}
	r.config.Image = secret
	first := r.began.Add(time.Second)
	r.meter.began(first, false)
	r.meter.used(qemu.Usage{CPU: time.Hour, Peak: 3 * units.GiB, Read: units.GiB})
	r.meter.began(first.Add(time.Minute), false)
	if r.meter.usage != nil {
		t.Error("a new machine has what the one before had used")
	}
	second := first.Add(time.Minute)
	r.meter.boot.Saw(second.Add(2*time.Second), "GNU Mach 1.8")
	r.meter.boot.Saw(second.Add(5*time.Second), "start ext2fs.static: ")
	r.meter.used(qemu.Usage{At: 9 * time.Second, CPU: 8 * time.Second, GuestCPU: 7 * time.Second, Peak: units.GiB, Read: 5, Written: 6})
	r.result.Phases = []Phase{{Title: "Boot", Start: first, End: second.Add(9 * time.Second), Failed: true}}
	r.publish(t.Context(), fail(BootFailed, "T", errors.New("x")))
	doc, text := numbers(t, r)
	u := doc.Usage
	if u == nil || u.Peak != 3*units.GiB || u.QEMUCPU != metrics.Seconds(8*time.Second) || u.GuestCPU != metrics.Seconds(7*time.Second) || u.Read != 5 || u.Written != 6 {
		t.Errorf("usage %+v", u)
	}
	want := []metrics.BootPhase{
		{Name: metrics.Kernel, Start: metrics.Seconds(2 * time.Second), Took: metrics.Seconds(3 * time.Second), Complete: true},
		{Name: metrics.Userland, Start: metrics.Seconds(5 * time.Second), Took: metrics.Seconds(4 * time.Second)},
	}
	for i, p := range doc.Boot.Phases {
		if p.Began, p.Ended = "", ""; i >= len(want) || p != want[i] {
			t.Errorf("phase %+v", p)
		}
	}
	page, err := os.ReadFile(filepath.Join(r.logs.dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	for name, shown := range map[string]string{"page": string(page), "summary": string(md)} {
		for _, want := range []string{"kernel 3.00 s, userland 4.00 s and no further", "guest 7.00 s, QEMU in all 8.00 s", "3 GiB at most"} {
			if !strings.Contains(shown, want) {
				t.Errorf("the %s lacks %q", name, want)
			}
		}
	}
	data, err := json.Marshal(doc)
	if err != nil || strings.Contains(text+string(data), secret) || !strings.Contains(string(data), "GNU ***") {
		t.Errorf("secrets: %v\n%s", err, data)
	}
}

// TestSavedMachineHasNoBoot: what a saved machine's console says is no boot.
func TestSavedMachineHasNoBoot(t *testing.T) {
	r, _ := newRun()
	r.meter.began(r.began, true)
	r.meter.boot.Saw(r.began.Add(time.Second), "GNU Mach 1.8")
	r.meter.boot.Answered(r.began.Add(2 * time.Second))
	r.meter.boot.Ready(r.began.Add(3 * time.Second))
	boot := r.bootTimes()
	if boot.Start != "restored" || len(boot.Phases) != 1 || boot.Phases[0].Name != metrics.SSH || boot.Phases[0].Took != metrics.Seconds(time.Second) {
		t.Errorf("%+v", boot)
	}
}

// TestFilesAsQEMUHasThem compares what is noted of an overlay and what is below
// it with what qemu-img says.
func TestFilesAsQEMUHasThem(t *testing.T) {
	dir := t.TempDir()
	base, overlay := filepath.Join(dir, "base.img"), filepath.Join(dir, "overlay.qcow2")
	f, err := os.Create(base)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(64<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	b := image.Base{Path: base, Format: "raw", VirtualSize: 64 * units.MiB}
	if err := image.CreateOverlay(b, overlay, 0); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-io", "-c", "write -P 7 1M 3M", overlay).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, _ := newRun()
	r.disk.base, r.overlayPath = b, overlay
	r.measureFiles()
	if len(r.meter.files) != 2 {
		t.Fatalf("files: %+v", r.meter.files)
	}
	for i, path := range []string{base, overlay} {
		out, err := exec.Command("qemu-img", "info", "--output=json", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		var info struct {
			Virtual units.Bytes `json:"virtual-size"`
			Actual  units.Bytes `json:"actual-size"`
		}
		if err := json.Unmarshal(out, &info); err != nil {
			t.Fatal(err)
		}
		if got := r.meter.files[i]; got.Virtual != info.Virtual || got.Allocated != info.Actual || i == 1 && got.Allocated < 3*units.MiB {
			t.Errorf("%+v, and qemu-img says %+v", got, info)
		}
	}
	if err := os.Remove(overlay); err != nil {
		t.Fatal(err)
	}
	before := r.meter.files[1]
	if r.measureFiles(); len(r.meter.files) != 2 || r.meter.files[1] != before {
		t.Errorf("an overlay that is gone was %+v, and is %+v", before, r.meter.files[1])
	}
}

// TestNetworkCountsOurConnections: the bytes of every connection count, also
// of those that have ended.
func TestNetworkCountsOurConnections(t *testing.T) {
	r, g, _ := newGuest(t, config.Inputs{})
	if r.meter.network() != nil {
		t.Error("there is traffic without a connection")
	}
	r.meter.clients = append(r.meter.clients, r.client)
	before := r.meter.network()
	if before.Connections != 1 || before.Sent < 100 || before.Received < 100 {
		t.Errorf("%+v", before)
	}
	sendMegabyte(t, r)
	after := r.meter.network()
	if more := after.Sent - before.Sent; more < units.MiB || more > units.MiB*11/10 || after.Received-before.Received > 100*units.KiB {
		t.Errorf("a megabyte was sent: %+v, before %+v", after, before)
	}
	_ = r.client.Close()
	r.meter.clients = append(r.meter.clients, g.dial(t))
	if both := r.meter.network(); both.Connections != 2 || both.Sent < after.Sent+100 {
		t.Errorf("%+v, before %+v", both, after)
	}
}

// TestNumbersOverAConsole: where a guest is reached over its console there is no
// SSH, and nothing that passes for it; the userland ends when the guest is up.
func TestNumbersOverAConsole(t *testing.T) {
	r, _, _ := newGuest(t, config.Inputs{})
	for _, transport := range []string{transportSerial, "ssh"} {
		r.config.Transport = transport
		r.started = r.began
		r.meter.began(r.started, false)
		r.meter.boot.Saw(r.began, "GNU Mach 1.8")
		r.meter.boot.Saw(r.began.Add(time.Millisecond), "start ext2fs.static: ")
		r.result.SSH = time.Second
		r.haveClient(r.client)
		boot, network := r.bootTimes(), r.meter.network()
		if last := boot.Phases[len(boot.Phases)-1]; last.Name != metrics.Userland || !last.Complete || boot.Total == nil {
			t.Errorf("%s: %+v", transport, boot)
		}
		if ssh := transport == "ssh"; (network != nil) != ssh || (boot.Login != nil) != ssh {
			t.Errorf("%s: %+v, %+v", transport, network, boot)
		}
	}
}

func sendMegabyte(t *testing.T, r *run) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := discard(ctx, r.client, io.LimitReader(zeros{}, 1<<20)); err != nil {
		t.Fatal(err)
	}
}
