package acttest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeDocker stands for the engine: its images are the files of $IMAGES, and it
// writes down what it was asked to do. $REGISTRY=yes lets it pull.
const fakeDocker = `#!/bin/sh
case "$1 $2" in
"version "*) [ "$ENGINE" != down ] || { echo "Cannot connect to the Docker daemon" >&2; exit 1; }; echo 20.10.24; exit ;;
"network inspect") case $5 in *Gateway*) echo "$GATEWAY" ;; *) echo 127.0.0.0/8 ;; esac; exit ;;
"image inspect") for name; do :; done; [ -e "$IMAGES/$(echo "$name" | tr /: __)" ]; exit ;;
esac
echo "docker $*" >>"$CALLS"
case $1 in
pull) for name; do :; done; [ "$REGISTRY" = yes ] || { echo "no such host" >&2; exit 1; }; touch "$IMAGES/$(echo "$name" | tr /: __)" ;;
import) cat >/dev/null; for name; do :; done; touch "$IMAGES/$(echo "$name" | tr /: __)" ;;
build) cat >/dev/null; touch "$IMAGES/$(echo "$3" | tr /: __)" ;;
esac
`

// fakeDebootstrap makes the few directories that the script fills.
const fakeDebootstrap = `#!/bin/sh
echo "debootstrap $*" >>"$CALLS"
[ "$MIRROR" != broken ] || { echo "I: Retrieving"; echo "E: Release signed by unknown key" >&2; exit 1; }
while [ $# -gt 2 ]; do shift; done
mkdir -p "$1"/etc/apt/sources.list.d "$1"/etc/apt/apt.conf.d "$1"/etc/dpkg/dpkg.cfg.d "$1"/usr/share/doc "$1"/var/log
`

// fakeApt names mirrors that do not exist.
const fakeApt = `#!/bin/sh
case "$*" in *Security*) echo http://mirror.invalid/security/ ;; *) echo http://mirror.invalid/debian/ ;; esac
`

// fakeAct writes down what it was asked to do.
const fakeAct = `#!/bin/sh
[ "$1" = --version ] || echo "act $*" >>"$CALLS"
`

// scriptRun is one run of a script between fakes.
type scriptRun struct{ calls, output, status string }

// runScript runs a script of testdata with fakes first on its PATH.
func runScript(t *testing.T, script string, env, images []string, arg ...string) scriptRun {
	t.Helper()
	bin, have := t.TempDir(), t.TempDir()
	calls := filepath.Join(t.TempDir(), "calls")
	for name, text := range map[string]string{
		"docker": fakeDocker, "debootstrap": fakeDebootstrap, "apt-get": fakeApt, "apt-config": "#!/bin/sh\n", "id": "#!/bin/sh\necho 0\n",
		"act": fakeAct, "go": "#!/bin/sh\ncase $2 in -n) echo " + bin + "/act ;; GOROOT) echo " + bin + " ;; GOVERSION) echo go1.26.8 ;; esac\n",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, image := range images {
		if err := os.WriteFile(filepath.Join(have, strings.NewReplacer("/", "_", ":", "_").Replace(image)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "testdata", script), arg...)
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "IMAGES=" + have, "CALLS=" + calls, "TMPDIR=" + t.TempDir()}, env...)
	output, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	done, err := os.ReadFile(calls)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return scriptRun{calls: string(done), output: string(output), status: cmd.ProcessState.String()}
}

func TestBaseImages(t *testing.T) {
	if _, err := os.Stat("/usr/share/keyrings/debian-archive-keyring.gpg"); err != nil {
		t.Skip("this machine has no debian-archive-keyring, which the script wants to see")
	}
	const debian, golang = "debian:trixie-slim", "golang:1.26-trixie"
	tests := []struct {
		name        string
		env, images []string
		arg         []string
		status      string
		calls       []string // each call must contain the next of these
		output      string
	}{
		{name: "everything is there", images: []string{debian, golang}, status: "exit status 0"},
		{name: "a registry is in reach", env: []string{"REGISTRY=yes"}, status: "exit status 0",
			calls: []string{"docker pull --quiet " + debian, "docker pull --quiet " + golang}, output: "pulled " + golang},
		{name: "stand-ins", status: "exit status 0", calls: []string{
			"docker pull", "debootstrap --variant=minbase --force-check-gpg --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie",
			"docker import --change CMD [\"bash\"]", "docker pull", "docker build --tag " + golang}, output: "from go1.26.8 of this machine"},
		{name: "only what is missing", images: []string{debian}, arg: []string{"--no-pull"}, status: "exit status 0",
			calls: []string{"docker build --tag " + golang}},
		{name: "by name", arg: []string{"--no-pull", "debian:bookworm-slim"}, status: "exit status 0",
			calls: []string{"bookworm", "docker import"}},
		{name: "another Go", arg: []string{"--no-pull", "golang:1.27-trixie"}, status: "exit status 1",
			output: "making golang:1.27-trixie: it wants Go 1.27, and this machine has go1.26.8"},
		{name: "a Go with the same beginning", arg: []string{"--no-pull", "golang:1.2-trixie"}, status: "exit status 1",
			output: "it wants Go 1.2, and"},
		{name: "nothing that it knows", arg: []string{"alpine:3"}, status: "exit status 1", calls: []string{"docker pull --quiet alpine:3"},
			output: "alpine:3 can neither be pulled nor made here: no such host"},
		{name: "bad signature", env: []string{"MIRROR=broken"}, arg: []string{"--no-pull"}, status: "exit status 1", calls: []string{"debootstrap"},
			output: "making debian:trixie-slim: debootstrap failed:\nE: Release signed by unknown key"},
		{name: "no engine", env: []string{"ENGINE=down"}, status: "exit status 1",
			output: "no Docker engine answers: Cannot connect to the Docker daemon"},
		{name: "bad option", arg: []string{"--frce"}, status: "exit status 1", output: "unknown argument: --frce"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := runScript(t, "docker/base-images", tt.env, tt.images, tt.arg...)
			if got.status != tt.status || !strings.Contains(got.output, tt.output) {
				t.Errorf("%s, want %s; output %q, want %q", got.status, tt.status, got.output, tt.output)
			}
			calls := strings.Split(strings.TrimSuffix(got.calls, "\n"), "\n")
			if got.calls == "" {
				calls = nil
			}
			if len(calls) != len(tt.calls) {
				t.Fatalf("%d calls, want %d:\n%s", len(calls), len(tt.calls), got.calls)
			}
			for i, want := range tt.calls {
				if !strings.Contains(calls[i], want) {
					t.Errorf("call %d is %q, want %q", i, calls[i], want)
				}
			}
		})
	}
}

// TestBaseImagesReadsDockerfile holds what counts as an image: neither stages
// nor scratch, each once.
func TestBaseImagesReadsDockerfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "Dockerfile")
	text := "FROM --platform=linux/amd64 debian:trixie-slim AS a\nfrom a as b\nFROM golang:1.26-trixie\nFROM scratch\nFROM debian:trixie-slim\n# FROM alpine\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got := runScript(t, "docker/base-images", []string{"REGISTRY=yes"}, nil, "--dockerfile", file)
	want := "docker pull --quiet debian:trixie-slim\ndocker pull --quiet golang:1.26-trixie\n"
	if got.calls != want || got.status != "exit status 0" {
		t.Errorf("%s, calls:\n%swant:\n%s%s", got.status, got.calls, want, got.output)
	}
}

func TestActRunRefuses(t *testing.T) {
	tests := []struct {
		name   string
		env    []string
		arg    []string
		output string
	}{
		{"no engine", []string{"ENGINE=down"}, nil, "no Docker engine answers: Cannot connect to the Docker daemon"},
		{"no such workflow", nil, []string{"--workflow", "none.yml"}, "no workflow none.yml"},
		{"nowhere for artifacts", nil, []string{"--artifacts"}, "--artifacts needs a value"},
		{"workflow without a name", nil, []string{"--workflow"}, "--workflow needs a value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := runScript(t, "act/run", tt.env, nil, tt.arg...)
			if got.status != "exit status 1" || !strings.Contains(got.output, tt.output) || got.calls != "" {
				t.Errorf("%s, output %q, want %q, calls %q", got.status, got.output, tt.output, got.calls)
			}
		})
	}
}

// TestActRunServesArtifacts holds where act's artifact server listens: where only
// this machine and its containers reach it, at a port that was free.
func TestActRunServesArtifacts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:34567")
	if err == nil { // else somebody else has it, which is as good
		defer func() { _ = taken.Close() }()
	}
	for _, tc := range []struct{ name, gateway, want string }{
		{"an engine that names its gateway", "127.0.0.2", "--artifact-server-addr 127.0.0.2 --artifact-server-port 34567 "},
		{"an engine that does not", "", "--artifact-server-addr 127.0.0.1 --artifact-server-port 3456"},
	} {
		dir := t.TempDir()
		got := runScript(t, "act/run", []string{"GATEWAY=" + tc.gateway, "HOME=" + t.TempDir()}, []string{"debian:trixie-slim", "golang:1.26-trixie"}, "--artifacts", dir)
		if !strings.Contains(got.calls, "--artifact-server-path "+dir+" "+tc.want) || got.status != "exit status 0" {
			t.Errorf("%s: %s, calls:\n%swant %s\n%s", tc.name, got.status, got.calls, tc.want, got.output)
		}
		if tc.gateway == "" && strings.Contains(got.calls, "--artifact-server-port 34567 ") {
			t.Errorf("%s: the port that is taken:\n%s", tc.name, got.calls)
		}
	}
}

// TestDockerfile holds what the runner and older engines ask of the image.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range unfit(string(text)) {
		t.Error(problem)
	}
	tests := []struct{ old, new, want string }{
		{`ENTRYPOINT ["/usr/local/bin/hurd-qemu-action"]`, `ENTRYPOINT hurd-qemu-action`, "a shell"},
		{`ENTRYPOINT ["/usr/local/bin/hurd-qemu-action"]`, `ENTRYPOINT ["sh", "-c", "hurd-qemu-action"]`, "a shell"},
		{"RUN go mod download", "RUN --mount=type=cache,target=/go go mod download", "BuildKit"},
		{"COPY *.go", "COPY --chmod=644 *.go", "BuildKit"},
		{"COPY *.go ./", "COPY . .", "whole workspace"},
		{"ENTRYPOINT", "USER 1000\nENTRYPOINT", "root"},
	}
	for _, tt := range tests {
		changed := strings.Replace(string(text), tt.old, tt.new, 1)
		if got := strings.Join(unfit(changed), "\n"); changed == string(text) || !strings.Contains(got, tt.want) {
			t.Errorf("with %q: %q, want %q", tt.new, got, tt.want)
		}
	}
}

func unfit(dockerfile string) (problems []string) {
	entrypoint := ""
	for line := range strings.Lines(dockerfile) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "ENTRYPOINT":
			entrypoint = rest
		case "USER":
			problems = append(problems, "USER: the runner wants root, whose files the workspace holds")
		case "RUN", "COPY":
			if strings.HasPrefix(rest, "--mount") || strings.HasPrefix(rest, "--chmod") || strings.Contains(rest, "<<") {
				problems = append(problems, "needs BuildKit, which act and older engines lack: "+line)
			}
			if word == "COPY" && strings.HasPrefix(rest, ". ") {
				problems = append(problems, "copies the whole workspace, whose logs change with each step: "+line)
			}
		}
	}
	if entrypoint != `["/usr/local/bin/hurd-qemu-action"]` {
		problems = append(problems, "the entrypoint is not the binary itself: a shell would drop INPUT_ names with hyphens: "+entrypoint)
	}
	return problems
}
