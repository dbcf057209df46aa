package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/spelling"
)

// InputError is one thing that is wrong with one input.
type InputError struct {
	Input   string // its name
	Value   string // as written; empty for a secret
	Problem string // what is wrong
	Allowed string // what would be right
}

// Error names the input, its value and what is allowed.
func (e *InputError) Error() string {
	var b strings.Builder
	b.WriteString(e.Input)
	if e.Value != "" {
		fmt.Fprintf(&b, ": %s", quoteValue(e.Value))
	}
	fmt.Fprintf(&b, ": %s", e.Problem)
	if e.Allowed != "" {
		fmt.Fprintf(&b, "; %s", e.Allowed)
	}
	return b.String()
}

// maxQuoted keeps a mistaken value (a script in the wrong input) from filling the log.
const maxQuoted = 80

func quoteValue(v string) string {
	first, rest, _ := strings.Cut(strings.TrimSpace(v), "\n")
	runes := []rune(first)
	if len(runes) > maxQuoted {
		return fmt.Sprintf("%q...", string(runes[:maxQuoted]))
	}
	if rest != "" {
		return fmt.Sprintf("%q...", first)
	}
	return fmt.Sprintf("%q", first)
}

// Problems is everything that is wrong with the inputs.
type Problems []*InputError

// Error lists the problems, one per line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, e := range p {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// unknownNames turns left-over INPUT_ variables into warnings' texts: the name
// as a user writes it, with the nearest input when one is near.
func unknownNames(values map[string]string) []string {
	texts := make([]string, 0, len(values))
	for env := range values {
		name := strings.ToLower(strings.TrimPrefix(env, "INPUT_"))
		if near := Nearest(name, fieldNames()); near != "" {
			texts = append(texts, fmt.Sprintf("%s is not an input of this action and is ignored; did you mean %s?", name, near))
			continue
		}
		texts = append(texts, fmt.Sprintf("%s is not an input of this action and is ignored", name))
	}
	slices.Sort(texts)
	return texts
}

func fieldNames() []string {
	fields := Fields()
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return names
}

// Nearest returns the candidate that is at most a third of its length of edits
// away from word, the closest one first, or an empty string.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", len(word)
	for _, c := range candidates {
		if d := spelling.Distance(normalize(word), normalize(c)); d <= max(1, len(c)/3) && d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

func normalize(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }
