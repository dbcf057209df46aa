package cloudinit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// parser collects the steps and everything that is wrong.
type parser struct {
	Options
	steps    []Step
	ignored  []string
	problems []error
}

func (p *parser) problem(part, format string, args ...any) {
	p.problems = append(p.problems, fmt.Errorf("%s: "+format, append([]any{part}, args...)...))
}

func (p *parser) ignore(part string) { p.ignored = append(p.ignored, part) }

// mapping is a YAML mapping of which keys are taken one by one; what is left in
// the end is what nobody knew.
type mapping struct {
	path   string // in the document; empty for its top
	keys   []string
	values map[string]*yaml.Node
}

// document reads a YAML document whose top is a mapping. Nothing is an empty one.
func (p *parser) document(name, text string) mapping {
	empty := mapping{values: map[string]*yaml.Node{}}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		p.problem(name, "reading it as YAML: %w", err)
		return empty
	}
	if len(doc.Content) == 0 || null(doc.Content[0]) {
		return empty
	}
	m, ok := p.mapping("", doc.Content[0])
	if !ok {
		p.problem(name, "its top level is no mapping: write keys such as packages: at the beginning of a line")
		return empty
	}
	return m
}

// mapping reads a node; false: it is none.
func (p *parser) mapping(path string, n *yaml.Node) (mapping, bool) {
	m := mapping{path: path, values: map[string]*yaml.Node{}}
	if n = target(n); n.Kind != yaml.MappingNode {
		return m, false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		// cloud-init knows most keys with both.
		key := n.Content[i].Value
		if path != "" {
			key = strings.ReplaceAll(key, "-", "_")
		}
		if m.values[key] == nil {
			m.keys = append(m.keys, key)
		}
		m.values[key] = n.Content[i+1]
	}
	return m, true
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func null(n *yaml.Node) bool { return target(n).Tag == "!!null" }

// at names a key of the mapping.
func (m mapping) at(key string) string {
	if m.path == "" {
		return key
	}
	return m.path + "." + key
}

// take returns a key's value, and nil for one that is missing or null.
func (m mapping) take(key string) *yaml.Node {
	n := m.values[key]
	delete(m.values, key)
	if n == nil || null(n) {
		return nil
	}
	return target(n)
}

// rest reports the keys that nobody took.
func (p *parser) rest(m mapping) {
	for _, key := range m.keys {
		if _, left := m.values[key]; left {
			p.ignore(m.at(brief(key)))
		}
	}
}

// text takes a scalar, as it is written: cloud-init's own types are few.
func (p *parser) text(m mapping, key string) string {
	n := m.take(key)
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		p.problem(m.at(key), "is no text")
		return ""
	}
	return n.Value
}

// flag takes a boolean; missing is the default.
func (p *parser) flag(m mapping, key string, missing bool) bool {
	n := m.take(key)
	if n == nil {
		return missing
	}
	switch strings.ToLower(n.Value) { // of YAML 1.1, which cloud-init reads
	case "true", "yes", "on", "1":
		return true
	case "false", "no", "off", "0":
		return false
	}
	p.problem(m.at(key), "%q is neither true nor false", brief(n.Value))
	return missing
}

// list takes a list; a single value is one with one entry.
func (p *parser) list(m mapping, key string) []*yaml.Node {
	n := m.take(key)
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.SequenceNode:
		return n.Content
	case n.Kind == yaml.ScalarNode:
		return []*yaml.Node{n}
	}
	p.problem(m.at(key), "is no list: begin each entry with a dash")
	return nil
}

// texts takes a list of texts.
func (p *parser) texts(m mapping, key string) []string {
	var all []string
	for i, n := range p.list(m, key) {
		n = target(n)
		if n.Kind != yaml.ScalarNode || null(n) {
			p.problem(index(m.at(key), i), "is no text")
			continue
		}
		all = append(all, n.Value)
	}
	return all
}

// lines takes a list of texts that end up as a line of a file each.
func (p *parser) lines(m mapping, key string) []string {
	var all []string
	for i, text := range p.texts(m, key) {
		if text = strings.TrimSpace(text); strings.ContainsAny(text, "\r\n\x00") {
			p.problem(index(m.at(key), i), "has more than one line")
		} else if text != "" && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// stdin makes an input of lines.
func stdin(lines []string) []byte { return []byte(strings.Join(lines, "\n") + "\n") }
