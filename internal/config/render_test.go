package config

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

var update = flag.Bool("update", false, "write action.yml and the README's tables")

const root = "../../"

// TestActionYAML holds that action.yml is what the Inputs struct says.
func TestActionYAML(t *testing.T) {
	want, err := ActionYAML()
	if err != nil {
		t.Fatal(err)
	}
	compare(t, root+"action.yml", want)
	var parsed struct {
		Runs    struct{ Using, Image string }
		Inputs  map[string]struct{ Description, Default string }
		Outputs map[string]struct{ Description string }
	}
	if err := yaml.Unmarshal(want, &parsed); err != nil {
		t.Fatal(err)
	}
	if parsed.Runs.Using != "docker" || parsed.Runs.Image != "Dockerfile" {
		t.Errorf("runs = %+v", parsed.Runs)
	}
	for _, f := range Fields() {
		got, ok := parsed.Inputs[f.Name]
		if !ok || got.Default != f.Default || got.Description != f.Help || f.Help == "" {
			t.Errorf("action.yml's %s = %+v, present %v; want default %q", f.Name, got, ok, f.Default)
		}
	}
	if len(parsed.Inputs) != len(Fields()) || len(parsed.Outputs) != len(Outputs()) {
		t.Errorf("%d inputs and %d outputs, want %d and %d", len(parsed.Inputs), len(parsed.Outputs), len(Fields()), len(Outputs()))
	}
}

// TestReadme holds that the README's tables are what the Inputs struct says.
func TestReadme(t *testing.T) {
	doc, err := os.ReadFile(root + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"inputs": InputsMarkdown(), "outputs": OutputsMarkdown()} {
		if doc, err = ReplaceSection(doc, name, content); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, root+"README.md", doc)
}

func compare(t *testing.T, file string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	if !*update {
		t.Fatalf("%s is out of date; run go test ./internal/config -update\n%s", file, cmp.Diff(string(got), string(want)))
	}
	if err := os.WriteFile(file, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestReplaceSection(t *testing.T) {
	got, err := ReplaceSection([]byte("a\n<!-- begin x -->old<!-- end x -->\nb\n"), "x", "new")
	if want := "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, doc := range []string{"none", "<!-- begin x --> only"} {
		if _, err := ReplaceSection([]byte(doc), "x", "new"); err == nil || !strings.Contains(err.Error(), "missing") {
			t.Errorf("%q: err = %v", doc, err)
		}
	}
}
