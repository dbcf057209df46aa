//go:build bench

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// TestBenchWarm measures what a saved machine is worth, on the selftest guest
// under TCG: Markdown tables on standard output, and those and plots in
// BENCH_DIR (build/bench). It fails when something does not work, not when
// something is slow: what else this machine does would decide that.
func TestBenchWarm(t *testing.T) {
	needGuest(t)
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("OpenSSH's client is not installed")
	}
	r := newReport(t)
	version, _, _ := strings.Cut(outputOf(t, "qemu-system-x86_64", "--version"), "\n")
	r.print("# Saved machines\n\n%s, %d processors, accelerator TCG, the selftest guest; seconds, as median (least–most).\n\n",
		version, runtime.NumCPU())
	for _, part := range []struct {
		name string
		do   func(*testing.T, *report)
	}{
		{"start", benchStart}, {"cold", benchCold}, {"memory", benchMemory}, {"many", benchMany}, {"saveable", benchSaveable}, {"cache", benchCache}, {"demand", benchDemand},
	} {
		t.Run(part.name, func(t *testing.T) {
			before := loadAverage(t)
			part.do(t, r)
			r.print("\nLoad of this machine (1 minute): %s before, %s after.\n\n", before, loadAverage(t))
		})
	}
	r.save(t)
}

func outputOf(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func loadAverage(t *testing.T) string {
	t.Helper()
	one, _, _ := strings.Cut(readFile(t, "/proc/loadavg"), " ")
	return one
}

// savedMachine is a machine in a store of its own.
type savedMachine struct {
	cache    string
	dir      string // of the entry
	manifest snapshot.Manifest
	saving   measured // the run that saved it
}

// saveMachine boots a machine and saves it.
func saveMachine(t *testing.T, args ...string) savedMachine {
	t.Helper()
	s := savedMachine{cache: t.TempDir()}
	s.saving = runOurs(t, s.cache, append(args, "--snapshot=save")...)
	s.dir = filepath.Dir(onlyMatch(t, filepath.Join(s.cache, "hurd-qemu-action/snapshots/entries/*/manifest.json")))
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(s.dir, "manifest.json"))), &s.manifest); err != nil {
		t.Fatal(err)
	}
	return s
}

// restored runs from the saved machine, and from nothing else.
func (s savedMachine) restored(t *testing.T, args ...string) measured {
	t.Helper()
	m := runOurs(t, s.cache, append(args, "--snapshot=restore")...)
	if m.phases["Restore"] == 0 || m.phases["Boot"] != 0 {
		t.Fatalf("not restored: %v\n%s", m.phases, m.log)
	}
	return m
}

// packed is what the entry has in a cache.
func (s savedMachine) packed(t *testing.T) units.Bytes {
	t.Helper()
	store := &snapshot.Store{Dir: filepath.Dir(filepath.Dir(s.dir))}
	entry, err := store.Open(t.Context(), s.manifest.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = entry.Close() }()
	var n bytes.Buffer
	if err := entry.Pack(t.Context(), &n); err != nil {
		t.Fatal(err)
	}
	return units.Bytes(n.Len())
}

// file is the data of one file of the entry, without its holes.
func (s savedMachine) file(name string) units.Bytes {
	for _, f := range s.manifest.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return 0
}

// resume is the floor: the same machine loaded by a QEMU without us, and one
// command run there by run.
func (s savedMachine) resume(t *testing.T, line, base string, run func(*bare, benchKey) time.Duration) time.Duration {
	t.Helper()
	key := keyFromPEM(t, []byte(s.manifest.Login.Private))
	disk := filepath.Join(s.dir, snapshot.Disk)
	ram := filepath.Join(t.TempDir(), "ram") // a copy: QEMU before 8.2 opens it for writing
	if err := exec.Command("cp", "--sparse=always", filepath.Join(s.dir, snapshot.RAM), ram).Run(); err != nil {
		t.Fatal(err)
	}
	state, err := os.Open(filepath.Join(s.dir, snapshot.State))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = state.Close() }()
	dir := t.TempDir()
	b := startBare(t, dir, bareArgs(line, dir, ram, base, disk, overlayOn(t, disk, "qcow2")), state)
	defer b.kill()
	b.load(t)
	return run(b, key)
}

const benchMemorySize = "512M"

// benchStart compares the ways to the first line of a script.
func benchStart(t *testing.T, r *report) {
	args := []string{"--memory=" + benchMemorySize, "--sync=none"}
	s := saveMachine(t, args...)
	w := saveMachine(t, "--memory="+benchMemorySize, "--sync=disk")
	disk := findPrepared(t, s.cache)
	warmLine := s.restored(t, args...).qemu
	key := newBenchKey(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("echo "+firstLine+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var recipe, cold, warm, workspace []measured
	var floor, floorGo spread
	interleave(benchRounds(15),
		func(round int) {
			if round%3 == 0 { // it takes as long as all the others together
				recipe = append(recipe, timed(t, exec.Command("testdata/recipe.sh", disk.overlay(t, key), "qcow2", benchMemorySize, freePort(t), key.path, script)))
			}
		},
		func(int) { cold = append(cold, runOurs(t, s.cache, append(args, "--snapshot=off")...)) },
		func(int) { warm = append(warm, s.restored(t, args...)) },
		func(int) {
			d := s.resume(t, warmLine, disk.path, func(b *bare, k benchKey) time.Duration { return b.openSSH(t, k.path) })
			floor = append(floor, d.Seconds())
		},
		func(int) {
			d := s.resume(t, warmLine, disk.path, func(b *bare, k benchKey) time.Duration { return b.tightLoop(t, k.signer) })
			floorGo = append(floorGo, d.Seconds())
		},
		func(int) { workspace = append(workspace, w.restored(t, "--memory="+benchMemorySize, "--sync=disk")) },
	)
	r.print("## To the first line of a script\n\n| | first line | exit | peak memory of our process |\n|---|---|---|---|\n")
	bars := []bar{}
	for _, row := range []struct {
		name string
		m    []measured
		s    spread
	}{
		{"shell recipe, asks every 5 s", recipe, nil}, {"cold run", cold, nil},
		{"warm run", warm, nil}, {"warm run with workspace drive", workspace, nil},
		{"bare QEMU restored, ssh", nil, floor}, {"bare QEMU restored, Go client", nil, floorGo},
	} {
		exit, peak := "-", "-"
		if row.m != nil {
			row.s, exit = seconds(row.m, first), seconds(row.m, total).String()
			if row.name[0] != 's' {
				peak = mostMemory(row.m).Human()
			}
		}
		bars = append(bars, bar{row.name, row.s})
		r.print("| %s | %s | %s | %s |\n", row.name, row.s, exit, peak)
	}
	r.plot(t, "warm-start", "From the start of the process to the script's first line", "s", bars)
	r.print("\nThe entry: %s of memory in use and %s in all at save, %s packed. Saving took %.2f s before the script.\n\n",
		s.file(snapshot.RAM).Human(), s.manifest.Data().Human(), s.packed(t).Human(), s.saving.phases["Save"].Seconds())
	benchPhases(r, "warm", warm)
	r.goal("warm run / bare restore with ssh", ratios(seconds(warm, first), floor).median(), 1.25, false)
	r.goal("warm run / bare restore with a Go client", ratios(seconds(warm, first), floorGo).median(), 1.25, false)
	r.goal("shell recipe / warm run", seconds(recipe, first).median()/seconds(warm, first).median(), 15, true)
}

// benchCold holds our cold run against a bare boot, and nothing between them:
// what another part of this benchmark leaves to be written would slow down
// whichever of the two follows it.
func benchCold(t *testing.T, r *report) {
	args := []string{"--memory=" + benchMemorySize, "--sync=none", "--snapshot=off"}
	cache := t.TempDir()
	runOurs(t, cache, args...) // prepares the image
	line := runOurs(t, cache, args...).qemu
	disk, key := findPrepared(t, cache), newBenchKey(t)
	var cold []measured
	var bareCold, banner, ourRest, bareRest spread
	interleave(benchRounds(15),
		func(int) { cold = append(cold, runOurs(t, cache, args...)) },
		func(int) {
			dir := t.TempDir()
			b := startBare(t, dir, bareArgs(line, dir, "", disk.path, disk.overlay(t, key)), nil)
			defer b.kill()
			bareCold = append(bareCold, b.tightLoop(t, key.signer).Seconds())
			banner = append(banner, b.banner.Seconds())
		},
	)
	r.print("## A boot\n\n| | first line | exit |\n|---|---|---|\n")
	r.print("| cold run | %s | %s |\n| bare QEMU, tight loop | %s | - |\n", seconds(cold, first), seconds(cold, total), bareCold)
	for i, m := range cold {
		ourRest = append(ourRest, (m.first - m.spoke).Seconds())
		bareRest = append(bareRest, bareCold[i]-banner[i])
	}
	r.print("\nThe SSH server spoke %s s after QEMU's start in the cold run, %s s in the bare one; all else took %s s and %s s.\n\n",
		seconds(cold, func(m measured) time.Duration { return m.spoke }), banner, ourRest, bareRest)
	benchPhases(r, "cold", cold)
	overhead := ratios(seconds(cold, first), bareCold)
	low, high := overhead.interval()
	r.goal(fmt.Sprintf("cold run / bare boot (%d pairs, 95 %% interval %.3f–%.3f, pairs %.3f–%.3f)", len(overhead), low, high, overhead.least(), overhead.most()),
		overhead.median(), 1.05, false)
}

// benchPhases shows where the time of runs goes.
func benchPhases(r *report, kind string, runs []measured) {
	r.print("Steps of the %s run:", kind)
	for _, name := range []string{"Accelerator", "Image", "Workspace", "Restore", "Boot", "Copy in", "Script"} {
		if s := seconds(runs, func(m measured) time.Duration { return m.phases[name] }); s.most() > 0 {
			r.print(" %s %s s;", name, s)
		}
	}
	r.print("\n\n")
}

func mostMemory(all []measured) units.Bytes {
	var most units.Bytes
	for _, m := range all {
		most = max(most, m.peak)
	}
	return most
}

// benchMemory restores guests of several sizes.
func benchMemory(t *testing.T, r *report) {
	sizes := []string{"256M", "1G", "4G"}
	machines, runs, do := map[string]savedMachine{}, map[string][]measured{}, []func(int){}
	for _, size := range sizes {
		machines[size] = saveMachine(t, "--sync=none", "--memory="+size)
		do = append(do, func(int) {
			runs[size] = append(runs[size], machines[size].restored(t, "--sync=none", "--memory="+size))
		})
	}
	interleave(benchRounds(10), do...)
	r.print("## By the guest's memory\n\n| memory | in use at save | restore | first line |\n|---|---|---|---|\n")
	var bars []bar
	for _, size := range sizes {
		restore := seconds(runs[size], func(m measured) time.Duration { return m.phases["Restore"] })
		bars = append(bars, bar{size, restore})
		r.print("| %s | %s | %s | %s |\n", size, machines[size].file(snapshot.RAM).Human(), restore, seconds(runs[size], first))
	}
	r.plot(t, "warm-memory", "Restore by the guest's memory", "s", bars)
	r.print("\n")
	r.goal("restore of 4G / 256M", bars[2].values.median()/bars[0].values.median(), 1.2, false)
}

// benchSaveable boots with memory that can be saved, and without.
func benchSaveable(t *testing.T, r *report) {
	args := []string{"--memory=" + benchMemorySize, "--sync=none"}
	cache := t.TempDir()
	runOurs(t, cache, append(args, "--snapshot=off")...) // prepares the image
	var shared, anonymous []measured
	interleave(benchRounds(10),
		func(int) { shared = append(shared, runOurs(t, cache, append(args, "--snapshot=save")...)) },
		func(int) { anonymous = append(anonymous, runOurs(t, cache, append(args, "--snapshot=off")...)) })
	boot := func(m measured) time.Duration { return m.phases["Boot"] }
	r.print("## Boots of a machine that is saved\n\n| memory | boot | save | first line | exit | peak memory of our process |\n|---|---|---|---|---|---|\n")
	for _, row := range []struct {
		name string
		m    []measured
	}{{"shared file, saved", shared}, {"anonymous", anonymous}} {
		r.print("| %s | %s | %s | %s | %s | %s |\n", row.name, seconds(row.m, boot), seconds(row.m, func(m measured) time.Duration { return m.phases["Save"] }),
			seconds(row.m, first), seconds(row.m, total), mostMemory(row.m).Human())
	}
	pairs := ratios(seconds(shared, boot), seconds(anonymous, boot))
	low, high := pairs.interval()
	r.print("\n- boot with shared / anonymous memory: %s, 95 %% interval %.3f–%.3f\n", pairs, low, high)
	r.goal("saving before the script starts, s", seconds(shared, func(m measured) time.Duration { return m.phases["Save"] }).median(), 2, false)
}
