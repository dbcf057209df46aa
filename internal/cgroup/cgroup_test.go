package cgroup

import (
	"io/fs"
	"testing"
	"testing/fstest"
)

func tree(files map[string]string) fs.FS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func TestMemoryLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  Memory
		ok    bool
	}{
		"nothing":      {nil, Memory{}, false},
		"v2 container": {map[string]string{"sys/fs/cgroup/memory.max": "4000\n", "sys/fs/cgroup/memory.current": "3000\n"}, Memory{4000, 3000}, true},
		"v2 cache counts as free": {map[string]string{
			"sys/fs/cgroup/memory.max": "4000\n", "sys/fs/cgroup/memory.current": "3000\n",
			"sys/fs/cgroup/memory.stat": "anon 500\nfile 2500\ninactive_file 2400\nactive_file 100\n",
		}, Memory{4000, 600}, true},
		"v2 without a limit": {map[string]string{"sys/fs/cgroup/memory.max": "max\n"}, Memory{}, false},
		"v2 service of systemd": {map[string]string{
			"proc/self/cgroup": "0::/system.slice/runner.service\n",
			"sys/fs/cgroup/system.slice/runner.service/memory.max":     "max\n",
			"sys/fs/cgroup/system.slice/memory.max":                    "5000\n",
			"sys/fs/cgroup/system.slice/memory.current":                "1000\n",
			"sys/fs/cgroup/system.slice/runner.service/memory.current": "10\n",
		}, Memory{5000, 1000}, true},
		"v2 the tightest counts": {map[string]string{
			"proc/self/cgroup":             "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "5000\n", "sys/fs/cgroup/a/b/memory.current": "100\n",
			"sys/fs/cgroup/a/memory.max": "6000\n", "sys/fs/cgroup/a/memory.current": "5900\n",
		}, Memory{6000, 5900}, true},
		"v1 container": {map[string]string{
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "2000\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500\n",
			"sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
		}, Memory{2000, 1200}, true},
		"v1 without a limit": {map[string]string{"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, Memory{}, false},
		"v1 on a host": {map[string]string{
			"proc/self/cgroup": "9:cpu,cpuacct:/x\n4:memory:/user.slice/x\n",
			"sys/fs/cgroup/memory/user.slice/x/memory.limit_in_bytes": "700\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":              "9223372036854771712\n",
		}, Memory{700, 0}, true},
		"outside of the namespace": {map[string]string{
			"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/memory.max": "4000\n",
		}, Memory{4000, 0}, true},
		"nonsense": {map[string]string{"sys/fs/cgroup/memory.max": "-5\n", "proc/self/cgroup": "0\n:\n"}, Memory{}, false},
	} {
		if got, ok := MemoryLimit(tree(tc.files)); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, got, ok, tc.want, tc.ok)
		}
	}
}

func TestCPULimit(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  float64
		ok    bool
	}{
		"nothing":            {nil, 0, false},
		"v2 container":       {map[string]string{"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5, true},
		"v2 without a quota": {map[string]string{"sys/fs/cgroup/cpu.max": "max 100000\n"}, 0, false},
		"v2 slice": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
		}, 0.5, true},
		"v1":                 {map[string]string{"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 2, true},
		"v1 joined":          {map[string]string{"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 0.5, true},
		"v1 without a quota": {map[string]string{"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 0, false},
	} {
		if got, ok := CPULimit(tree(tc.files)); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, ok, tc.want, tc.ok)
		}
	}
}

func TestLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  int64
		ok    bool
	}{
		"nothing":      {nil, 0, false},
		"v2 container": {map[string]string{"sys/fs/cgroup/pids.max": "50\n"}, 50, true},
		"v2 service of systemd": {map[string]string{
			"proc/self/cgroup": "0::/system.slice/runner.service\n",
			"sys/fs/cgroup/system.slice/runner.service/pids.max": "100\n",
			"sys/fs/cgroup/system.slice/pids.max":                "max\n",
		}, 100, true},
		"v1 above us": {map[string]string{
			"proc/self/cgroup":                "3:pids:/a/b\n",
			"sys/fs/cgroup/pids/a/b/pids.max": "max\n", "sys/fs/cgroup/pids/a/pids.max": "7\n",
		}, 7, true},
		"another controller": {map[string]string{"proc/self/cgroup": "3:memory:/a\n", "sys/fs/cgroup/memory/a/pids.max": "7\n"}, 0, false},
	} {
		if got, ok := Limit(tree(tc.files), "pids", "pids.max"); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %d, %v; want %d, %v", name, got, ok, tc.want, tc.ok)
		}
	}
}
