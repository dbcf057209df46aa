package guest

import (
	"fmt"
	"strings"
)

// placeholder stands for the script's path in a shell template.
const placeholder = "{0}"

// A TemplateError says what is wrong with the command line of a custom shell.
type TemplateError struct {
	Template, Problem string
}

// Error quotes the template and says how one looks.
func (e *TemplateError) Error() string {
	return fmt.Sprintf("the shell %q %s: write a command line with {0} for the script's path, such as \"bash -eo pipefail {0}\", or one of the names bash, sh, python", e.Template, e.Problem)
}

// builtinShells are the names that stand for a command line, as in a workflow.
func builtinShells() map[string]string {
	return map[string]string{
		"bash":   "bash --noprofile --norc -eo pipefail {0}",
		"sh":     "sh -e {0}",
		"python": "python {0}",
	}
}

// ParseShell splits a shell template into its words, one of which holds {0}
// exactly once. Words are separated by blanks; single quotes, double quotes and
// backslashes work as in a POSIX shell, and nothing is expanded. The empty
// template has no words and means the default. The error is a *TemplateError.
func ParseShell(template string) ([]string, error) {
	text := strings.TrimSpace(template)
	if text == "" {
		return nil, nil
	}
	if line, ok := builtinShells()[text]; ok {
		text = line
	}
	words, problem := splitWords(text)
	if problem == "" {
		switch n := strings.Count(strings.Join(words, " "), placeholder); {
		case n == 0:
			problem = "does not say where the script goes"
		case n > 1:
			problem = "holds {0} more than once"
		case strings.Contains(words[0], placeholder) && words[0] != placeholder:
			problem = "names its program by {0}"
		}
	}
	if problem != "" {
		return nil, &TemplateError{Template: template, Problem: problem}
	}
	return words, nil
}

// splitWords splits as a POSIX shell does, without expansions.
func splitWords(text string) (words []string, problem string) {
	var word strings.Builder
	inWord, quote, escaped := false, rune(0), false
	for _, r := range text {
		switch {
		case r < ' ' && r != '\t' || r == 0x7f:
			return nil, "holds a control character or a line end"
		case escaped:
			if quote == '"' && !strings.ContainsRune("\"\\$`", r) {
				word.WriteRune('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	switch {
	case quote != 0:
		return nil, fmt.Sprintf("has an open quote (%c)", quote)
	case escaped:
		return nil, "ends with a backslash"
	case inWord:
		words = append(words, word.String())
	}
	return words, ""
}

// quote makes a word that any POSIX shell takes as this text.
func quote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// quoteAll makes a command line of words.
func quoteAll(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}
