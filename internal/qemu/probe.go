package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// probeTimeout bounds the asking, which takes 0.2 s on a quiet host.
const probeTimeout = 20 * time.Second

// questions are asked all at once of one QEMU that builds no machine. They
// are monitor commands because their replies have one form in every version,
// which help texts have not. The id tells where a reply goes.
const questions = `{"execute":"qmp_capabilities"}
{"id":"version","execute":"query-version"}
{"id":"machines","execute":"query-machines"}
{"id":"devices","execute":"qom-list-types","arguments":{"implements":"device","abstract":false}}
{"id":"cpus","execute":"query-cpu-definitions"}
{"id":"accels","execute":"qom-list-types","arguments":{"implements":"accel"}}
{"id":"kvm","execute":"qom-list-properties","arguments":{"typename":"kvm-accel"}}
{"id":"ram","execute":"qom-list-properties","arguments":{"typename":"memory-backend-file"}}
{"id":"run-with","execute":"query-command-line-options","arguments":{"option":"run-with"}}
{"id":"vnc","execute":"query-command-line-options","arguments":{"option":"vnc"}}
{"id":"sandbox","execute":"query-command-line-options","arguments":{"option":"sandbox"}}
`

// lastAnswer is how the reply to the last question names it, in QEMU's spacing.
const lastAnswer = `"id": "sandbox"`

// answers keeps what QEMU writes and says when the last reply is there. Only
// then may QEMU be told to quit: it drops what a full pipe has not taken yet.
type answers struct {
	buf  bytes.Buffer
	last func() error
	told bool
}

func (a *answers) Write(p []byte) (int, error) {
	a.buf.Write(p)
	if a.told {
		return len(p), nil
	}
	at := bytes.LastIndex(a.buf.Bytes(), []byte(lastAnswer))
	if at < 0 || !bytes.ContainsRune(a.buf.Bytes()[at:], '\n') {
		return len(p), nil
	}
	a.told = true
	return len(p), a.last()
}

// ask starts a QEMU, asks it everything and returns its answers.
func ask(ctx context.Context, binary string) (*Features, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, errors.New("it took too long to answer"))
	defer cancel()
	cmd := process.Command(ctx, binary, "-nodefaults", "-no-user-config", "-machine", "none", "-display", "none", "-S", "-qmp", "stdio")
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("asking QEMU what it can do: %w", err)
	}
	defer func() { _ = errors.Join(r.Close(), w.Close()) }() // nothing is left in it
	if _, err := w.WriteString(questions); err != nil {      // they fit into a pipe
		return nil, fmt.Errorf("asking QEMU what it can do: %w", err)
	}
	stdout := &answers{last: func() error {
		_, err := w.WriteString(`{"execute":"quit"}` + "\n")
		return err
	}}
	cmd.Stdin, cmd.Stdout = r, stdout
	if err := process.Run(ctx, cmd); err != nil {
		return nil, fmt.Errorf("asking QEMU what it can do: %w", err)
	}
	f, err := parseAnswers(&stdout.buf)
	if err != nil {
		return nil, fmt.Errorf("asking %s what it can do: %w", binary, err)
	}
	return f, nil
}

// named is an entry of most of the lists in the answers.
type named struct {
	Name string `json:"name"`
}

// option is one entry of query-command-line-options.
type option struct {
	Parameters []named `json:"parameters"`
}

// parseAnswers reads the replies to questions.
func parseAnswers(r io.Reader) (*Features, error) {
	replies, err := readReplies(r)
	if err != nil {
		return nil, err
	}
	var version qmp.Version
	var machines []struct {
		MachineType
		CPU string `json:"default-cpu-type"`
	}
	var devices, cpus, accels, kvm, ram []named
	var runWith, vnc, sandbox []option
	for id, to := range map[string]any{
		"version": &version, "machines": &machines, "devices": &devices, "cpus": &cpus, "accels": &accels,
		"kvm": &kvm, "ram": &ram, "run-with": &runWith, "vnc": &vnc, "sandbox": &sandbox,
	} {
		if reply := replies[id]; reply != nil { // else QEMU refused: it has no such thing
			if err := json.Unmarshal(reply, to); err != nil {
				return nil, fmt.Errorf("reading its answer about %s: %w", id, err)
			}
		}
	}
	if version == (qmp.Version{}) || len(machines) == 0 || len(devices) == 0 {
		return nil, errors.New("it did not name its version, machines and devices")
	}
	f := &Features{
		Version: version.String(), Package: version.Package,
		Devices: sortedNames(devices), CPUModels: sortedNames(cpus),
		TCG: slices.Contains(accels, named{"tcg-accel"}), KVM: slices.Contains(accels, named{"kvm-accel"}),
		KVMDevice:  slices.Contains(kvm, named{"device"}),
		PrivateRAM: slices.Contains(ram, named{"rom"}),
		RunWith:    hasParameter(runWith, "user"), Sandbox: hasParameter(sandbox, "spawn"),
		VNC: hasParameter(vnc, "password"),
	}
	for _, m := range machines {
		f.Machines = append(f.Machines, m.MachineType)
	}
	slices.SortFunc(f.Machines, func(a, b MachineType) int { return strings.Compare(a.Name, b.Name) })
	return f, nil
}

// readReplies collects what was returned, by id.
func readReplies(r io.Reader) (map[string]json.RawMessage, error) {
	replies := map[string]json.RawMessage{}
	for decoder := json.NewDecoder(r); ; {
		var m struct {
			ID     string          `json:"id"`
			Return json.RawMessage `json:"return"`
		}
		switch err := decoder.Decode(&m); {
		case errors.Is(err, io.EOF):
			return replies, nil
		case err != nil:
			return nil, fmt.Errorf("reading its answers: %w", err)
		case m.ID != "" && m.Return != nil:
			replies[m.ID] = m.Return
		}
	}
}

func sortedNames(list []named) []string {
	names := make([]string, 0, len(list))
	for _, n := range list {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

func hasParameter(options []option, name string) bool {
	return slices.ContainsFunc(options, func(o option) bool { return slices.Contains(o.Parameters, named{name}) })
}
