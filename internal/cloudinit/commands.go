package cloudinit

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// commands makes one script of a list of commands, as cloud-init does: what one
// of them changes in the shell, such as its directory, is so for the next.
func (p *parser) commands(doc mapping, key string) {
	var lines, titles []string
	n := doc.take(key)
	switch {
	case n == nil:
		return
	case n.Kind != yaml.SequenceNode:
		p.problem(key, "is no list: begin each command with a dash")
		return
	}
	for i, n := range n.Content {
		text, err := command(target(n))
		if err != nil {
			p.problem(index(key, i), "%w", err)
			continue
		}
		lines, titles = append(lines, text), append(titles, brief(text))
	}
	if len(lines) == 0 {
		return
	}
	// The marks have a descriptor of their own, for commands that begin with
	// exec >FILE; no program inherits it, which could hold the output open.
	var b strings.Builder
	b.WriteString("#!/bin/sh\n" + compact(systemctlScript) + "exec 9>&1\n")
	for _, text := range lines {
		fmt.Fprintf(&b, "{\n%s\n} 9>&-\nprintf '%%s %%s\\n' '%s' $? >&9\n", text, p.Mark)
	}
	count := "1 command"
	if len(lines) > 1 {
		count = fmt.Sprintf("%d commands", len(lines))
	}
	p.steps = append(p.steps, Step{Part: key, Title: count, Text: b.String(), Shell: "sh {0}", Commands: titles})
}

// command writes one entry as a command of a shell: a text is one, and a list
// is a program with its arguments, of which nothing is expanded.
func command(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if strings.TrimSpace(n.Value) == "" || strings.ContainsRune(n.Value, 0) || null(n) {
			return "", fmt.Errorf("is no command")
		}
		return n.Value, nil
	case yaml.SequenceNode:
		var words []string
		for _, w := range n.Content {
			if w = target(w); w.Kind != yaml.ScalarNode || strings.ContainsRune(w.Value, 0) {
				return "", fmt.Errorf("has an argument that is no text")
			}
			words = append(words, w.Value)
		}
		if len(words) > 0 {
			return quoteAll(words), nil
		}
	}
	return "", fmt.Errorf("is neither a command line nor a list of words (a colon followed by a blank makes YAML see a mapping: put the command into quotes)")
}
