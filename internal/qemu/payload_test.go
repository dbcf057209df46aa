package qemu

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// assemble runs a program of binutils, or skips the test without it.
func assemble(t *testing.T, name string, args ...string) {
	t.Helper()
	needProgram(t, name, "binutils")
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// TestPayloadIsItsSource assembles the payload again; -update keeps the result.
func TestPayloadIsItsSource(t *testing.T) {
	dir := t.TempDir()
	object, linked, binary := filepath.Join(dir, "o"), filepath.Join(dir, "elf"), filepath.Join(dir, "bin")
	assemble(t, "as", "--32", "-o", object, "payload/payload.S")
	assemble(t, "ld", "-m", "elf_i386", "-Ttext=0", "-e", "0", "-o", linked, object)
	assemble(t, "objcopy", "-O", "binary", "-j", ".text", linked, binary)
	got, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("payload/payload.bin", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !slices.Equal(got, payload()) {
		t.Errorf("payload.bin is not what payload.S says (%d and %d bytes): run this test with -update", len(payload()), len(got))
	}
	if len(got) != 512 {
		t.Errorf("the payload has %d bytes; its addresses are for 512", len(got))
	}
}

// tcgOptions run the payload under TCG.
func tcgOptions(t testing.TB) AccelOptions {
	t.Helper()
	needQEMU(t)
	f, err := Probe(deadline(t, 30*time.Second), *qemuFlag, "")
	if err != nil {
		t.Fatal(err)
	}
	return AccelOptions{Features: f, Binary: *qemuFlag, Timeout: 20 * time.Second}
}

// TestE2EPayload holds what the probe promises: under TCG, which always works,
// the payload is content, in less than 250 ms with QEMU's start. Other work on
// the host may slow single runs down, and so decides nothing.
func TestE2EPayload(t *testing.T) {
	const limit, runs, rounds = 250 * time.Millisecond, 5, 6
	o := tcgOptions(t)
	var medians []time.Duration
	for range rounds {
		var times []time.Duration
		for range runs {
			start := time.Now()
			if failure := runPayload(deadline(t, 30*time.Second), o, AccelTCG, Access{}); failure != nil {
				t.Fatalf("the payload fails under TCG: %+v", *failure)
			}
			times = append(times, time.Since(start))
		}
		slices.Sort(times)
		medians = append(medians, times[runs/2])
		if times[runs/2] < limit {
			t.Logf("median %v", times[runs/2])
			return
		}
	}
	t.Errorf("medians of %d runs: %v; want one below %v", runs, medians, limit)
}

// patched is the payload with some bytes changed, at their first occurrence.
func patched(t *testing.T, from, to []byte) []byte {
	t.Helper()
	code := payload()
	at := bytes.Index(code, from)
	if at < 0 {
		t.Fatalf("the payload has no % x", from)
	}
	copy(code[at:], to)
	return code
}

// TestE2EPayloadIsCritical shows that the payload can fail at what it checks.
func TestE2EPayloadIsCritical(t *testing.T) {
	o := tcgOptions(t)
	const long, short = 20 * time.Second, 500 * time.Millisecond
	pageA, pageB := []byte{0x03, 0x40, 0, 0}, []byte{0x03, 0x50, 0, 0} // as the table has them
	vector := []byte{0xe9, 0x0d, 0xfe}                                 // the reset vector's jmp to the start
	for _, tc := range []struct {
		name  string
		code  []byte
		limit time.Duration
		want  payloadFailure
	}{
		{"memory that forgets", patched(t, []byte("druH"), []byte("DruH")), long, payloadFailure{ran: true, status: 1<<1 | 1}},
		{"a wrong mapping", patched(t, pageB, pageA), long, payloadFailure{ran: true, status: 2<<1 | 1}},
		{"a mapping that does not change", patched(t, pageA, pageB), long, payloadFailure{ran: true, status: 5<<1 | 1}},
		{"a processor that stands still", patched(t, vector, []byte{0xeb, 0xfe}), short, payloadFailure{timeout: true, status: -1}},
		{"a reset", patched(t, vector, []byte{0xb0, 0xfe, 0xe6, 0x64, 0xf4}), long, payloadFailure{ran: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o.Timeout = tc.limit
			failure := runFirmware(deadline(t, 30*time.Second), o, AccelTCG, Access{}, tc.code)
			if failure == nil || *failure != tc.want {
				t.Errorf("got %+v, want %+v", failure, tc.want)
			}
		})
	}
}

// TestE2ELateDrop has QEMU change its own user, as it must where only root
// may open the KVM device and QEMU takes no descriptor of it.
func TestE2ELateDrop(t *testing.T) {
	o := tcgOptions(t)
	if failure := runPayload(deadline(t, 30*time.Second), o, AccelTCG, Access{Late: true}); failure != nil {
		t.Errorf("the payload fails: %+v", *failure)
	}
}

func BenchmarkPayload(b *testing.B) {
	o := tcgOptions(b)
	for b.Loop() {
		if failure := runPayload(context.Background(), o, AccelTCG, Access{}); failure != nil {
			b.Fatalf("the payload fails: %+v", *failure)
		}
	}
}
