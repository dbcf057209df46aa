package provision

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/kdomanski/iso9660"
)

// Numbers from ECMA-119 (ISO 9660).
const (
	isoSector     = 2048
	isoVolume     = 16 * isoSector // the primary volume descriptor
	isoRootRecord = isoVolume + 156
	isoDateOffset = 18 // of the recording date in a directory record
)

// seedVolume is the volume id by which cloud-init finds its NoCloud disk.
const seedVolume = "cidata"

// isoName are the names that the library keeps as they are: it changes upper
// case, most punctuation, long names and all dots but the last.
var isoName = regexp.MustCompile(`^[a-z0-9_-]{1,28}$`)

// isoMaxFiles keeps the root directory well within one sector: the library
// miscounts the sectors of a directory that fills one exactly.
const isoMaxFiles = 16

// isoImage makes an ISO 9660 image of a few files. It works around what the
// library does not do: names are refused that it would change, recording
// dates, which it leaves zero, are set, and what lies behind a file's end in
// its last sector, where it repeats earlier data, is cleared.
func isoImage(files map[string][]byte) (image []byte, err error) {
	if len(files) > isoMaxFiles {
		return nil, fmt.Errorf("%d files are more than the %d that fit", len(files), isoMaxFiles)
	}
	w, err := iso9660.NewWriter()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Cleanup()) }()
	for name, data := range files {
		if !isoName.MatchString(name) {
			return nil, fmt.Errorf("%q is no name that survives ISO 9660", name)
		}
		if err := w.AddFile(bytes.NewReader(data), name); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	if err := w.WriteTo(&out, seedVolume); err != nil {
		return nil, err
	}
	image = out.Bytes()
	return image, mendISO(image, files, time.Now().UTC())
}

// mendISO sets dates, clears the ends of last sectors, and proves that every
// file can be found in the image.
func mendISO(image []byte, files map[string][]byte, now time.Time) error {
	if len(image) < isoRootRecord+34 {
		return errors.New("the image is too short")
	}
	date := isoDate(now)
	root := image[isoRootRecord:]
	copy(root[isoDateOffset:], date)
	dir, err := isoExtent(image, root)
	if err != nil {
		return err
	}
	found := map[string]bool{}
	for len(dir) > 0 && dir[0] != 0 {
		n := int(dir[0])
		if n < 34 || n > len(dir) || 33+int(dir[32]) > n {
			return errors.New("a directory record is invalid")
		}
		record := dir[:n]
		dir = dir[n:]
		copy(record[isoDateOffset:], date)
		name := strings.TrimSuffix(string(record[33:33+int(record[32])]), ";1")
		want, ours := files[name]
		if !ours {
			continue // the directory itself and its parent
		}
		data, err := isoExtent(image, record)
		if err != nil {
			return err
		}
		if !bytes.Equal(data, want) {
			return fmt.Errorf("the image holds something else as %s", name)
		}
		clear(data[len(data) : (len(data)+isoSector-1)/isoSector*isoSector])
		found[name] = true
	}
	if len(found) != len(files) {
		return fmt.Errorf("the image holds %d of %d files", len(found), len(files))
	}
	return nil
}

// isoExtent is the data of a directory record, with the room behind it up to
// the end of the image as capacity.
func isoExtent(image, record []byte) ([]byte, error) {
	from := uint64(binary.LittleEndian.Uint32(record[2:])) * isoSector
	to := from + uint64(binary.LittleEndian.Uint32(record[10:]))
	if end := (to + isoSector - 1) / isoSector * isoSector; end > uint64(len(image)) {
		return nil, errors.New("a directory record points beyond the image")
	}
	return image[from:to], nil
}

// isoDate is the seven bytes of ECMA-119, 9.1.5, in UTC.
func isoDate(t time.Time) []byte {
	return []byte{
		byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0,
	}
}
