package config

import (
	"bytes"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// actionFile is the part of an action's metadata that we write, in the order
// of the documentation ("Metadata syntax for GitHub Actions").
type actionFile struct {
	Name        string
	Description string
	Author      string
	Branding    struct{ Icon, Color string }
	Inputs      yaml.Node
	Outputs     yaml.Node
	Runs        struct{ Using, Image string }
}

// ActionYAML renders action.yml.
func ActionYAML() ([]byte, error) {
	f := actionFile{
		Name:        "GNU/Hurd in QEMU",
		Description: "Boots GNU/Hurd in QEMU, with KVM where it works, and runs a script in it over SSH.",
		Author:      "the hurd-qemu-action authors",
	}
	f.Branding.Icon, f.Branding.Color = "cpu", "orange"
	f.Runs.Using, f.Runs.Image = "docker", "Dockerfile"
	f.Inputs.Kind, f.Outputs.Kind = yaml.MappingNode, yaml.MappingNode
	for _, in := range Fields() {
		pairs := []string{"description", in.Help}
		if in.Default != "" {
			pairs = append(pairs, "default", in.Default)
		}
		entry := mapping(pairs...)
		required := scalar("false")
		if in.Name == "run" {
			required = scalar("true")
		}
		required.Tag = "!!bool"
		entry.Content = append(entry.Content, scalar("required"), required)
		f.Inputs.Content = append(f.Inputs.Content, scalar(in.Name), entry)
	}
	for _, out := range Outputs() {
		f.Outputs.Content = append(f.Outputs.Content, scalar(out.Name), mapping("description", out.Help))
	}
	var b bytes.Buffer
	b.WriteString("# Generated from internal/config by `go generate ./...`; a test holds that it is up to date.\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(f); err != nil {
		return nil, fmt.Errorf("rendering action.yml: %w", err)
	}
	return b.Bytes(), enc.Close()
}

func scalar(text string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(text)
	return n
}

func mapping(pairs ...string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, text := range pairs {
		n.Content = append(n.Content, scalar(text))
	}
	return n
}

// InputsMarkdown renders the README's tables of inputs, one per group.
func InputsMarkdown() string {
	var b strings.Builder
	group := ""
	for _, f := range Fields() {
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(&b, "\n#### %s\n\n| input | default | meaning |\n| --- | --- | --- |\n", group)
		}
		def := "–"
		if f.Default != "" {
			def = "`" + f.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, def, cell(f.Help))
	}
	return b.String()
}

// OutputsMarkdown renders the README's table of outputs.
func OutputsMarkdown() string {
	var b strings.Builder
	b.WriteString("\n| output | meaning |\n| --- | --- |\n")
	for _, o := range Outputs() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", o.Name, cell(o.Help))
	}
	return b.String()
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// ReplaceSection puts content between the marker comments of a Markdown file:
// <!-- begin NAME --> and <!-- end NAME -->.
func ReplaceSection(doc []byte, name, content string) ([]byte, error) {
	begin, end := "<!-- begin "+name+" -->", "<!-- end "+name+" -->"
	head, rest, ok := bytes.Cut(doc, []byte(begin))
	if !ok {
		return nil, fmt.Errorf("finding %q in the document: it is missing", begin)
	}
	_, tail, ok := bytes.Cut(rest, []byte(end))
	if !ok {
		return nil, fmt.Errorf("finding %q in the document: it is missing", end)
	}
	return bytes.Join([][]byte{head, []byte(begin + "\n" + content + "\n" + end), tail}, nil), nil
}
