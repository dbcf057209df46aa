package cli

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/org/hurd-qemu-action/"

// leaves may be imported by every package.
var leaves = []string{"internal/cgroup", "internal/platform", "internal/process", "internal/spelling", "internal/units"}

// allowed says what else a package of ours imports of ours. A package under
// another one may be imported by it, and else by who is named here. What is not
// listed imports leaves only.
var allowed = map[string][]string{
	".": {"internal/cli", "internal/initproc"},
	"internal/cli": {
		"internal/actions", "internal/config", "internal/doctor", "internal/image", "internal/lifecycle", "internal/monitor",
		"internal/registry", "internal/results", "internal/selftest", "internal/shard", "internal/snapshot",
	},
	"internal/lifecycle": {
		"internal/actions", "internal/cloudinit", "internal/config", "internal/console", "internal/diagnostic", "internal/dialogue", "internal/doctor",
		"internal/environment", "internal/guest", "internal/image", "internal/metrics", "internal/monitor", "internal/nbd", "internal/provision", "internal/qemu", "internal/registry",
		"internal/report", "internal/results", "internal/selftest", "internal/serial", "internal/snapshot", "internal/tunnel", "internal/workspace",
	},
	"internal/monitor":   {"internal/qemu/qmp"}, // the protocol, whoever started the QEMU
	"internal/provision": {"internal/dialogue", "internal/ext2"},
	"internal/registry":  {"internal/image/fetch"}, // as an image is fetched
	"internal/workspace": {"internal/ext2"},
}

// TestImports holds the structure that keeps the packages apart: one pass at
// the top, domain packages that do not know each other, leaves below.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := ours(p.ImportPath)
		seen[name] = true
		for _, path := range p.Imports {
			if !strings.HasPrefix(path, module) {
				continue
			}
			dep := ours(path)
			inside := strings.HasPrefix(dep, family(name)+"/")
			if !inside && !slices.Contains(leaves, dep) && !slices.Contains(allowed[name], dep) {
				t.Errorf("%s imports %s: the consumer declares an interface, or takes values, instead", name, dep)
			}
			if slices.Contains(leaves, name) {
				t.Errorf("%s is a leaf and imports %s", name, dep)
			}
		}
	}
	for name, deps := range allowed {
		for _, dep := range append(deps, name) {
			if !seen[dep] {
				t.Errorf("the table names %s, which is no package", dep)
			}
		}
	}
}

func ours(path string) string {
	if rest, ok := strings.CutPrefix(path, module); ok {
		return rest
	}
	return "."
}

// family is the top package that a package lies under: internal/image for
// internal/image/fetch.
func family(name string) string {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 2 {
		return name
	}
	return strings.Join(parts[:2], "/")
}

// TestEnvironmentIsReadAtTheTop holds that only cli reads the environment and
// only main exits.
func TestEnvironmentIsReadAtTheTop(t *testing.T) {
	out, err := exec.Command("git", "grep", "-nE", `os\.(Getenv|LookupEnv|Environ|Exit)\(`, "--", ":/*.go", ":!/*_test.go", ":!/main.go", ":!/internal/cli/", ":!/internal/process/process.go").Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatal(err)
	}
	if len(out) > 0 {
		t.Errorf("these lines belong into main:\n%s", out)
	}
}
