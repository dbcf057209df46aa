package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/registry"
	"github.com/org/hurd-qemu-action/internal/snapshot"
)

// Contents says what whoever gets a saved machine gets with it. Some of it its
// owner must have allowed: the risks.
func Contents(m *snapshot.Manifest) (facts, risks []string) {
	var note saverNote
	if err := json.Unmarshal(m.Guest, &note); err != nil {
		risks = append(risks, "it does not say how it was made: it may hold anything")
	}
	facts = []string{
		fmt.Sprintf("the guest's memory (%s, of which %s with its disk are not zeros), with whatever its programs had read and not forgotten", m.Key.Memory.Human(), m.Data().Human()),
		"what the guest wrote to its disk; not the image below, " + snapshot.Printable(m.Key.Base) + ", which who uses it must have",
		"a key to log in with, which is of no use in a guest that was restored: it is replaced there before anything else",
	}
	if note.Uname != "" {
		facts = append(facts, "the guest: "+snapshot.Printable(note.Uname))
	}
	if m.Key.Prepare != "" {
		risks = append(risks, "a prepare script, user-data, console-script or qmp was carried out in it: whatever that fetched, was given or wrote is in it, and so are tokens and passwords that stand in it")
	}
	if note.UserKey {
		risks = append(risks, "the public half of ssh-private-key is in it: it was made by a run with a key of your own")
	}
	return facts, risks
}

// Push publishes a saved machine.
type Push struct {
	Client   *registry.Client
	Temp     string             // directory for the packed machine
	Progress func(image.Report) // nil: nobody
}

// Do packs an entry and puts it into a registry. It returns the reference by
// which it is to be used.
func (p Push) Do(ctx context.Context, e *snapshot.Entry, ref registry.Reference) (_ registry.Reference, err error) {
	facts, err := e.Manifest.Facts()
	if err != nil {
		return ref, err
	}
	dir, err := os.MkdirTemp(p.Temp, "hurd-push-")
	if err != nil {
		return ref, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	name := e.Name() + snapshot.Extension
	if err := e.Export(ctx, filepath.Join(dir, name)); err != nil {
		return ref, err
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return ref, err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return ref, err
	}
	client := *p.Client
	client.Moved, client.Notify = transfer(image.StepSend, ref.String(), p.Progress)
	return client.Push(ctx, ref, registry.Packed{File: f, Size: size, SHA256: hex.EncodeToString(h.Sum(nil)), Name: name, Facts: facts})
}
