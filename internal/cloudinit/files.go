package cloudinit

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/org/hurd-qemu-action/internal/units"
)

// maxFile bounds what a compressed file unpacks to.
const maxFile = 64 << 20

func (p *parser) writeFiles(doc mapping) (now, deferred []Step) {
	for i, n := range p.list(doc, "write_files") {
		at := index("write_files", i)
		m, ok := p.mapping(at, n)
		if !ok {
			p.problem(at, "is no mapping with path and content")
			continue
		}
		later := p.flag(m, "defer", false)
		step := p.writeFile(m)
		if later {
			deferred = append(deferred, step)
		} else {
			now = append(now, step)
		}
		p.rest(m)
	}
	return now, deferred
}

var (
	modePattern  = regexp.MustCompile(`^(0o)?([0-7]{3,5})$`)
	ownerPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$`)
)

func (p *parser) writeFile(m mapping) Step {
	name := p.text(m, "path")
	if !path.IsAbs(name) || strings.HasSuffix(name, "/") || strings.ContainsRune(name, 0) {
		p.problem(m.at("path"), "%q is not the absolute path of a file", brief(name))
	}
	text, encoding := p.text(m, "content"), p.text(m, "encoding")
	content, err := decode(text, encoding)
	if err != nil {
		p.problem(m.at("content"), "%w", err)
	}
	// As written: 644 without quotes means 0644 to everybody but YAML.
	mode := p.text(m, "permissions")
	octal := modePattern.FindStringSubmatch(mode)
	switch {
	case mode == "":
		octal = []string{"", "", "0644"}
	case octal == nil:
		p.problem(m.at("permissions"), "%q is no octal mode such as '0644'", brief(mode))
		octal = []string{"", "", ""}
	}
	owner := p.text(m, "owner")
	if owner == "" {
		owner = "root:root"
	}
	if !ownerPattern.MatchString(owner) {
		p.problem(m.at("owner"), "%q is not user or user:group", brief(owner))
	}
	how := "replace"
	if p.flag(m, "append", false) {
		how = "append"
	}
	title := fmt.Sprintf("%s, %s", brief(name), units.Bytes(len(content)).Human())
	if owner == "root:root" {
		owner = "0:0" // the group of id 0 has other names elsewhere
	}
	return line(m.path, title, writeScript, content, name, octal[2], owner, how)
}

// decode undoes an encoding of write_files.
func decode(text, encoding string) ([]byte, error) {
	var packed, coded bool
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "text/plain":
		return []byte(text), nil
	case "b64", "base64":
		coded = true
	case "gz", "gzip":
		packed = true
	case "gz+b64", "gz+base64", "gzip+b64", "gzip+base64":
		packed, coded = true, true
	default:
		return nil, fmt.Errorf("encoding: %q is not known: use b64, gz+b64 or text/plain", brief(encoding))
	}
	data := []byte(text)
	if coded {
		var err error
		if data, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), "")); err != nil {
			return nil, fmt.Errorf("decoding base64: %w", err)
		}
	}
	if !packed {
		return data, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("unpacking gzip: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(z, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("unpacking gzip: %w", err)
	}
	if len(out) > maxFile {
		return nil, errors.New("unpacking gzip: it holds more than 64 MiB")
	}
	return out, nil
}
