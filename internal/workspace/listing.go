package workspace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// ListingArgs are the arguments of GNU find that make it print what a Listing
// reads, run in the guest's workspace. busybox' find can't.
var ListingArgs = []string{".", "-printf", `%y\0%m\0%s\0%T@\0%C@\0%i\0%n\0%l\0%P\0`}

// listingFields is how many fields ListingArgs asks for.
const listingFields = 9

// Listing is a Source without data: what find prints about a guest's
// workspace. It lets Compare choose what a tar stream then brings.
type Listing struct{ r io.Reader }

// NewListing reads what find printed, which Walk can do only once.
func NewListing(r io.Reader) *Listing { return &Listing{r} }

// Walk reads the listing.
func (l *Listing) Walk(ctx context.Context, visit func(Node) error) error {
	in := bufio.NewReaderSize(l.r, 2*maxTarget)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := readListed(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the guest's list of files: %w", err)
		}
		if err := visit(n); err != nil {
			return err
		}
	}
}

// errListing says that a line of the list isn't what find prints.
var errListing = errors.New("it isn't what find -printf prints")

func readListed(in *bufio.Reader) (Node, error) {
	var field [listingFields]string
	for i := range field {
		b, err := in.ReadSlice(0)
		if errors.Is(err, io.EOF) && (i > 0 || len(b) > 0) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil { // bufio.ErrBufferFull: longer than any path
			return Node{}, err
		}
		field[i] = string(b[:len(b)-1])
	}
	mode, err1 := strconv.ParseUint(field[1], 8, 16)
	size, err2 := strconv.ParseInt(field[2], 10, 64)
	modTime, err3 := listedTime(field[3])
	changeTime, err4 := listedTime(field[4])
	inode, err5 := strconv.ParseUint(field[5], 10, 64)
	links, err6 := strconv.ParseUint(field[6], 10, 32)
	if errors.Join(err1, err2, err3, err4, err5, err6) != nil || size < 0 {
		return Node{}, fmt.Errorf("%w: %.200q", errListing, field)
	}
	kind, ok := listedTypes[field[0]]
	if !ok {
		kind = fs.ModeIrregular
	}
	n := Node{
		Path: field[8], Mode: permissions(uint32(mode)) | kind, Size: units.Bytes(size),
		ModTime: modTime, ChangeTime: changeTime, Target: field[7],
	}
	if n.Path == "" {
		n.Path = "."
	}
	if links > 1 && !n.Mode.IsDir() {
		n.Inode = inode
	}
	return n, nil
}

var listedTypes = map[string]fs.FileMode{
	"f": 0, "d": fs.ModeDir, "l": fs.ModeSymlink, "p": fs.ModeNamedPipe, "s": fs.ModeSocket,
	"b": fs.ModeDevice, "c": fs.ModeDevice | fs.ModeCharDevice,
}

// listedTime reads seconds with a fraction.
func listedTime(text string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	nanoseconds, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(seconds, int64(nanoseconds)), nil
}
