package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/image/fetch"
)

// sums are the hashes of a file, in hexadecimal.
type sums struct{ sha256, sha512 string }

// expectation is what a file must match. Empty fields match anything.
type expectation struct {
	sums
	how    How
	detail string // where the hashes come from, when they are the publisher's
	signer *signer
}

// ErrHash is wrapped by the errors about a file that is not the one that was wanted.
var ErrHash = errors.New("the file is not the one that was expected")

// expected says what is known of a file before anything is fetched: by the
// user, and by the table of presets.
func expected(want Want, preset *Preset) (expectation, error) {
	e := expectation{sums: sums{want.SHA256, want.SHA512}, how: Given}
	if preset != nil && preset.SHA512 != "" {
		if e.sha512 != "" && e.sha512 != preset.SHA512 {
			return e, fmt.Errorf("%w: image-sha512 is not the hash of %s, which is %s", ErrHash, preset.File, preset.SHA512)
		}
		if !want.hasHash() {
			e.how = Pinned
		}
		e.sha512 = preset.SHA512
	}
	return e, nil
}

// hasHash tells whether a file can be recognised before it is fetched.
func (e expectation) hasHash() bool { return e.sha256 != "" || e.sha512 != "" }

// matches tells whether hashes are those that are expected.
func (e expectation) matches(have sums) bool {
	return (e.sha256 == "" || e.sha256 == have.sha256) && (e.sha512 == "" || e.sha512 == have.sha512)
}

// check compares hashes, and says what they were compared with.
func (e expectation) check(have sums) error {
	for _, c := range []struct{ name, want, have string }{{"SHA-256", e.sha256, have.sha256}, {"SHA-512", e.sha512, have.sha512}} {
		if c.want == "" || c.want == c.have {
			continue
		}
		source := map[How]string{Given: "wanted is", Pinned: "known to us is", Published: "published is"}[e.how]
		if e.detail != "" {
			source = "by " + e.detail + " it is"
		}
		return fmt.Errorf("%w: its %s is %s, %s %s", ErrHash, c.name, c.have, source, c.want)
	}
	return nil
}

// verification is how a file that has passed was verified.
func (e expectation) verification() Verification {
	const shown = 16
	detail := e.detail
	if detail == "" && e.sha512 != "" {
		detail = "SHA-512 " + e.sha512[:shown] + "..."
	} else if detail == "" && e.sha256 != "" {
		detail = "SHA-256 " + e.sha256[:shown] + "..."
	}
	switch {
	case e.signer != nil:
		return Verification{How: Signed, Detail: e.signer.String()}
	case e.hasHash():
		return Verification{How: e.how, Detail: detail}
	}
	return Verification{How: Nothing}
}

// hashLists are the names under which publishers keep hashes beside their
// files, with the hashes' length in hexadecimal digits.
var hashLists = []struct {
	name   string
	digits int
}{{"SHA512SUMS", 128}, {"SHA256SUMS", 64}}

// maxList bounds a list of hashes; Debian's largest has some 100 KiB.
const maxList = 4 << 20

// ErrNoList says that a publisher's hash of a file was not found.
var ErrNoList = errors.New("no published hash was found")

// published adds the publisher's hash of a file to an expectation. What was
// once seen is kept in the store and decides from then on.
// The key stands for the file, wherever it is fetched from.
func (s *Store) published(ctx context.Context, e *expectation, key, file string, dirs []string) error {
	path := filepath.Join(s.Dir, pinsDir, hashName(key)+".json")
	p, err := readPin(path)
	if errors.Is(err, fs.ErrNotExist) {
		if p, err = s.fetchPin(ctx, file, dirs); err == nil {
			err = s.writePin(path, p)
		}
	}
	if err != nil {
		return err
	}
	e.sums, e.how = sums{p.SHA256, p.SHA512}, Published
	e.detail = fmt.Sprintf("%s, pinned %s", p.List, p.Since.UTC().Format(time.DateOnly))
	return nil
}

// pinsDir holds the pins.
const pinsDir = "pins"

// pin is a published hash as it was when first seen.
type pin struct {
	File           string
	SHA256, SHA512 string `json:",omitempty"`
	List           string // address of the list
	Since          time.Time
}

func readPin(path string) (pin, error) {
	var p pin
	data, err := os.ReadFile(path)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("%w: reading %s: %w", ErrDamaged, path, err)
	}
	if !sha256Pattern.MatchString(p.SHA256) && !sha512Pattern.MatchString(p.SHA512) {
		return p, fmt.Errorf("%w: %s holds no hash", ErrDamaged, path)
	}
	return p, nil
}

// writePin keeps a pin, if the store can be written; otherwise there is
// nothing to be fetched either.
func (s *Store) writePin(path string, p pin) error {
	data, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding the pin: %w", err)
	}
	if err := s.mkdir(pinsDir); err != nil {
		return fmt.Errorf("keeping the published hash: %w", err)
	}
	if err := writeFile(path, append(data, '\n')); err != nil {
		return fmt.Errorf("keeping the published hash: %w", err)
	}
	return nil
}

// fetchPin looks for a file in the lists of some directories.
func (s *Store) fetchPin(ctx context.Context, file string, dirs []string) (pin, error) {
	client := s.fetcher(func(note string) { s.report(Report{Step: StepVerify, Source: file, Note: note}) })
	var missing []error
	for _, dir := range dirs {
		for _, list := range hashLists {
			text, err := client.Get(ctx, dir+list.name, maxList)
			var status *fetch.StatusError
			switch {
			case err == nil:
			case errors.As(err, &status) && status.Status == http.StatusNotFound, errors.Is(err, fetch.ErrNotFile):
				missing = append(missing, fmt.Errorf("%s: %w", dir+list.name, err))
				continue
			default:
				return pin{}, fmt.Errorf("fetching %s: %w", dir+list.name, err)
			}
			hash, ok := findHash(string(text), file, list.digits)
			if !ok {
				missing = append(missing, fmt.Errorf("%s does not list it", dir+list.name))
				continue
			}
			p := pin{File: file, List: dir + list.name, Since: s.now()}
			if list.digits == hex.EncodedLen(sha256.Size) {
				p.SHA256 = hash
			} else {
				p.SHA512 = hash
			}
			return p, nil
		}
	}
	return pin{}, fmt.Errorf("%w for %s (%w)", ErrNoList, file, joinLine(missing))
}

// taggedPattern is a line of the BSD form: SHA512 (file) = hash.
var taggedPattern = regexp.MustCompile(`^[A-Z0-9-]+ \((.*)\) = ([0-9a-fA-F]+)$`)

// findHash finds a file's hash in the output of sha512sum or sha256sum.
func findHash(list, file string, digits int) (string, bool) {
	for line := range strings.Lines(list) {
		line = strings.TrimRight(line, "\r\n")
		hash, name, ok := strings.Cut(line, " ")
		name = strings.TrimPrefix(strings.TrimLeft(name, " *"), "./")
		if m := taggedPattern.FindStringSubmatch(line); m != nil {
			hash, name, ok = m[2], m[1], true
		}
		if ok && name == file && len(hash) == digits {
			if _, err := hex.DecodeString(hash); err == nil {
				return strings.ToLower(hash), true
			}
		}
	}
	return "", false
}

// joinLine joins errors in one line.
func joinLine(errs []error) error {
	var all error
	for _, err := range errs {
		if all == nil {
			all = err
		} else {
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

// hashName makes a file's name of any text.
func hashName(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
