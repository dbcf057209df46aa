package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/org/hurd-qemu-action/internal/ext2"
)

// aptConf tells apt that the old date of a snapshot's index is meant.
const (
	aptConfDir  = "/etc/apt/apt.conf.d"
	aptConfFile = aptConfDir + "/00hurd-qemu-action"
	aptConf     = "// The archive is taken at a moment in the past.\nAcquire::Check-Valid-Until \"false\";\n"
)

// A moment of snapshot.debian.org.
var snapshotTime = regexp.MustCompile(`^\d{8}T\d{6}Z$`)

// archiveURL matches the address of a Debian archive, or of an earlier
// snapshot of one, in a line of apt's sources.
var archiveURL = regexp.MustCompile(`https?://(?:snapshot\.debian\.org/archive/(debian(?:-ports|-security|-debug)?)/\d{8}T\d{6}Z|[^/\s]+/(?:\S*/)?(debian(?:-ports|-security|-debug)?))/?(\s|$)`)

// EditSources points apt's sources at a moment of snapshot.debian.org. It
// reads both formats (sources.list(5)) and leaves comments and other archives
// alone.
func EditSources(sources []byte, moment string) []byte {
	var out strings.Builder
	for line := range strings.Lines(string(sources)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			line = archiveURL.ReplaceAllString(line, "http://snapshot.debian.org/archive/${1}${2}/"+moment+"/${3}")
		}
		out.WriteString(line)
	}
	return []byte(out.String())
}

func (p *preparation) apt() error {
	if p.AptSnapshot == "" {
		return nil
	}
	if !snapshotTime.MatchString(p.AptSnapshot) {
		return fmt.Errorf("%q is no moment of snapshot.debian.org: write it as in 20260314T000000Z", p.AptSnapshot)
	}
	files := []string{"/etc/apt/sources.list"}
	entries, err := p.root.ReadDir("/etc/apt/sources.list.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name, ".list") || strings.HasSuffix(e.Name, ".sources") {
			files = append(files, path.Join("/etc/apt/sources.list.d", e.Name))
		}
	}
	found := false
	for _, name := range files {
		old, err := p.read(name)
		if err != nil {
			return err
		}
		edited := EditSources(old, p.AptSnapshot)
		found = found || strings.Contains(string(edited), p.AptSnapshot)
		if string(edited) == string(old) {
			continue
		}
		if _, err := p.file(name, edited, ext2.Attr{}, false); err != nil {
			return err
		}
		p.changed("%s: pointed apt at %s", name, p.AptSnapshot)
	}
	if !found {
		p.warn("no Debian archive was found in apt's sources: apt-snapshot has no effect")
		return nil
	}
	if err := p.batch.MkdirAll(aptConfDir, ext2.Attr{Mode: 0o755}); err != nil {
		return err
	}
	did, err := p.file(aptConfFile, []byte(aptConf), ext2.Attr{Mode: 0o644}, true)
	if did {
		p.changed("wrote %s", aptConfFile)
	}
	return err
}
