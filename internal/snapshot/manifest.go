package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Manifest describes a saved machine. It is kept beside the files and goes
// ahead of them when they are packed.
type Manifest struct {
	Format  int       `json:"format"`
	Key     Key       `json:"key"`
	Created time.Time `json:"created"`
	Action  string    `json:"action"`      // version of the program that saved it; for people
	Package string    `json:"qemuPackage"` // the distributor's version of QEMU; for people

	Login Login `json:"login"`

	// Guest is what the saver knows of the guest and the restorer wants to know
	// without looking at the disk. This package does not look into it.
	Guest json.RawMessage `json:"guest,omitempty"`

	Files []File `json:"files"` // State, RAM and Disk; filled in by Draft.Commit
}

// Login is how the saved guest is reached. Whoever has the entry has the key:
// in a guest that was restored both keys are replaced before anything else.
type Login struct {
	Port     int      `json:"port"`     // in the guest
	HostKeys []string `json:"hostKeys"` // public, as in authorized_keys
	Private  string   `json:"private"`  // the key to log in with, PEM
}

// File describes one file of a saved machine.
type File struct {
	Name   string      `json:"name"`
	Size   units.Bytes `json:"size"`
	Data   units.Bytes `json:"data"`   // in blocks of 4096 bytes that are not all zeros
	SHA256 string      `json:"sha256"` // Sum.SHA256
	CRC32C string      `json:"crc32c"` // Sum.CRC32C
}

// Limits of what is read from a manifest, which may come from a stranger.
const (
	maxManifest = 256 << 10
	maxState    = 256 * units.MiB
	maxMemory   = 1 * units.TiB
	maxDisk     = 8 * units.TiB
)

// file returns the description of a file, which Check has found to be there.
func (m *Manifest) file(name string) File {
	return m.Files[slices.IndexFunc(m.Files, func(f File) bool { return f.Name == name })]
}

// Data is how much of the files is not zeros: what the entry takes on a disk.
func (m *Manifest) Data() units.Bytes {
	var total units.Bytes
	for _, f := range m.Files {
		total += f.Data
	}
	return total
}

// encode writes the manifest, always the same for the same contents.
func (m *Manifest) encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(m, "", "\t")
	if err == nil && len(data) >= maxManifest {
		err = fmt.Errorf("%w: the manifest has %d bytes, more than %d", ErrSize, len(data), maxManifest)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding the manifest: %w", err)
	}
	return append(data, '\n'), nil
}

// ParseManifest reads a manifest and checks that it describes a machine that
// can exist. The error is ErrDamaged, or ErrIncompatible for another Format.
func ParseManifest(data []byte) (*Manifest, error) {
	var version struct {
		Format int `json:"format"`
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%w: its manifest has %d bytes", ErrDamaged, len(data))
	}
	if err := json.Unmarshal(data, &version); err != nil { // which may quote all of a stranger's text
		return nil, fmt.Errorf("%w: reading its manifest: %s", ErrDamaged, Printable(err.Error()))
	}
	if version.Format != Format {
		return nil, &IncompatibleError{[]Difference{{"format", fmt.Sprint(version.Format), fmt.Sprint(Format)}}}
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // what this version does not know it can't compare
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("%w: reading its manifest: %s", ErrDamaged, Printable(err.Error()))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows its manifest", ErrDamaged)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: its manifest: %w", ErrDamaged, err)
	}
	return &m, nil
}

// check holds what the rest of the package relies on.
func (m *Manifest) check() error {
	if m.Format != Format {
		return fmt.Errorf("format %d", m.Format)
	}
	if m.Key.Accel != KVM && m.Key.Accel != TCG {
		return fmt.Errorf("%s is no accelerator", shown(m.Key.Accel))
	}
	if m.Key.QEMU == "" || m.Key.Machine == "" || len(m.Key.Disks) == 0 {
		return errors.New("the key lacks QEMU's version, the machine type or the disks")
	}
	if len(m.Files) != len(names) {
		return fmt.Errorf("it names %d files, not %d", len(m.Files), len(names))
	}
	limits := map[string]units.Bytes{State: maxState, RAM: maxMemory, Disk: maxDisk}
	for i, f := range m.Files {
		switch {
		case f.Name != names[i]:
			return fmt.Errorf("file %d is %s, not %s", i+1, shown(f.Name), names[i])
		case f.Size <= 0 || f.Size > limits[f.Name]:
			return fmt.Errorf("%s has a size of %d bytes", f.Name, int64(f.Size))
		case f.Data < 0 || f.Data > f.Size:
			return fmt.Errorf("%s has %d bytes of data in %d", f.Name, int64(f.Data), int64(f.Size))
		case !isHex(f.SHA256, sha256.Size) || !isHex(f.CRC32C, crcSize):
			return fmt.Errorf("a sum of %s is none", f.Name)
		case f.Name == RAM && f.Size != m.Key.Memory:
			return fmt.Errorf("%s has %d bytes, and the machine has %d of memory", f.Name, int64(f.Size), int64(m.Key.Memory))
		}
	}
	return nil
}

// isHex tells whether text is a number of bytes in hexadecimal.
func isHex(text string, size int) bool {
	data, err := hex.DecodeString(text)
	return err == nil && len(data) == size && hex.EncodeToString(data) == text
}

// Annotations of a published entry, beside those of the OCI image
// specification, "Pre-Defined Annotation Keys".
const (
	annotationPrefix = "vnd.hurd-qemu-action.snapshot."
	annotationKey    = annotationPrefix + "key"    // JSON of the Key
	annotationData   = annotationPrefix + "data"   // bytes that are not zeros
	annotationAction = annotationPrefix + "action" // version of the program that saved it
)

// Facts are what anybody may know of the entry before fetching it, as the
// annotations of an OCI manifest. The login is not among them.
func (m *Manifest) Facts() (map[string]string, error) {
	key, err := json.Marshal(m.Key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key: %w", err)
	}
	return map[string]string{
		"org.opencontainers.image.created":     m.Created.UTC().Format(time.RFC3339),
		"org.opencontainers.image.title":       "Saved virtual machine",
		"org.opencontainers.image.description": strings.Join(m.Key.Explain(), "; "),
		annotationKey:                          string(key),
		annotationData:                         strconv.FormatInt(int64(m.Data()), 10),
		annotationAction:                       m.Action,
	}, nil
}

// FactsKey reads the key of a published entry from its facts.
func FactsKey(facts map[string]string) (Key, error) {
	var k Key
	text := facts[annotationKey]
	if text == "" || len(text) > maxManifest {
		return k, fmt.Errorf("%w: nothing says what machine it is", ErrIncompatible)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&k); err != nil { // as in ParseManifest
		return k, fmt.Errorf("%w: reading what machine it is: %s", ErrIncompatible, Printable(err.Error()))
	}
	return k, nil
}

// Fits returns nil when a machine saved under a key may be used where one of the
// wanted ones is, and else the first difference.
func Fits(saved Key, wanted []Key) error {
	return Admission{Wanted: wanted}.check(&Manifest{Key: saved})
}
