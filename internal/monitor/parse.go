package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The names of what is not QEMU's own.
const (
	sendKey    = "sendkey"
	typeText   = "type"
	screendump = "screendump"
	human      = "human-monitor-command"
	humanShort = "hmp"
	info       = "info"
)

// DefaultHold is how long a key is down. QEMU's own 10 ms are too short for an
// emulated guest on a busy host.
const DefaultHold = 50 * time.Millisecond

const maxHold = 10 * time.Second

// commandName is what QEMU's commands are called.
var commandName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// ErrIncomplete is wrapped by the error for JSON that ends too early: what
// follows on the next line may complete it.
var ErrIncomplete = errors.New("the JSON ends too early")

// Parse reads a command: JSON as QMP has it, or a line such as
//
//	query-status
//	device_add driver=usb-kbd id=keyboard
//	blockdev-add {"driver": "null-co", "node-name": "zero"}
//	sendkey ctrl-alt-f2 "typed text" ret hold-time=100
//	type any text to the end of the line
//	screendump menu.png
//	hmp info pic
//	info pic
func Parse(text string) (Command, error) {
	text = strings.TrimSpace(text)
	if !utf8.ValidString(text) {
		return Command{}, fmt.Errorf("%s is not UTF-8", brief(text))
	}
	if strings.HasPrefix(text, "{") {
		return parseJSON(text)
	}
	name, rest := cutBlank(text)
	rest = strings.TrimSpace(rest)
	if wantsRaw(name, rest) {
		return raw(name, rest)
	}
	if strings.HasPrefix(rest, "{") {
		return withObject(name, rest)
	}
	items, err := split(rest)
	if err != nil {
		return Command{}, err
	}
	return build(name, items)
}

// ParseWords is Parse for words that a shell has taken apart.
func ParseWords(words []string) (Command, error) {
	if len(words) == 0 {
		return Command{}, errors.New("there is no command")
	}
	name, rest := words[0], words[1:]
	if strings.HasPrefix(strings.TrimSpace(name), "{") || len(rest) == 0 && strings.ContainsAny(name, " \t") {
		return Parse(strings.Join(words, " "))
	}
	joined := strings.Join(rest, " ")
	if !utf8.ValidString(joined) {
		return Command{}, fmt.Errorf("%s is not UTF-8", brief(joined))
	}
	if wantsRaw(name, joined) {
		return raw(name, joined)
	}
	if strings.HasPrefix(joined, "{") {
		return withObject(name, joined)
	}
	items := make([]item, len(rest))
	for i, word := range rest {
		key, text, ok := strings.Cut(word, "=")
		if !ok || !argumentName.MatchString(key) {
			// The shell has taken the quotes away; keys have no blanks.
			items[i] = item{word: word, quoted: strings.ContainsAny(word, " \t\n")}
			continue
		}
		v, err := wordValue(text)
		if err != nil {
			return Command{}, fmt.Errorf("%s: %w", key, err)
		}
		items[i] = item{key: key, value: v}
	}
	return build(name, items)
}

// wordValue is a value that may hold blanks, since it is a word of the shell's.
func wordValue(text string) (any, error) {
	if text == "" || !strings.Contains(`{["`, text[:1]) {
		return typed(text), nil
	}
	v, rest, err := value(text)
	if err == nil && rest != "" {
		err = fmt.Errorf("%s follows its value", brief(rest))
	}
	return v, err
}

// wantsRaw tells whether all that follows a name is one text.
func wantsRaw(name, rest string) bool {
	switch name {
	case humanShort, info:
		return true
	case human:
		return !strings.HasPrefix(rest, "command-line=") && !strings.HasPrefix(rest, "cpu-index=") && !strings.HasPrefix(rest, "{")
	case typeText:
		return rest == "" || rest[0] != '"' && rest[0] != '\''
	}
	return false
}

// raw builds a command from a text that is not taken apart.
func raw(name, text string) (Command, error) {
	if name == typeText {
		chords, err := typing(text)
		return Command{Name: "send-key", Chords: chords, Hold: DefaultHold, Typed: true}, err
	}
	if text != "" && (text[0] == '"' || text[0] == '\'') {
		if inner, rest, err := quotation(text); err == nil && rest == "" {
			text = inner
		}
	}
	if name == info {
		text = strings.TrimSpace("info " + text)
	}
	if strings.TrimSpace(text) == "" {
		return Command{}, fmt.Errorf("%s: the command for the human monitor is missing, as in %s info pic", name, name)
	}
	return Command{Name: human, Arguments: map[string]any{"command-line": text}}, nil
}

// withObject is a name followed by the arguments as one JSON object.
func withObject(name, text string) (Command, error) {
	if !commandName.MatchString(name) {
		return Command{}, fmt.Errorf("%s is no name of a command", brief(name))
	}
	v, rest, err := decode(text)
	if err != nil {
		return Command{}, err
	}
	if strings.TrimSpace(rest) != "" {
		return Command{}, fmt.Errorf("%s follows the arguments", brief(strings.TrimSpace(rest)))
	}
	args, _ := v.(map[string]any) // it begins with {
	return finish(Command{Name: name, Arguments: args})
}

// build makes a command of its name and the words after it.
func build(name string, items []item) (Command, error) {
	switch {
	case !commandName.MatchString(name):
		return Command{}, fmt.Errorf("%s is no name of a command", brief(name))
	case name == sendKey || name == typeText:
		return keyboard(name, items)
	case name == screendump && len(items) > 0 && items[0].key == "":
		items = append([]item{{key: "filename", value: items[0].word}}, items[1:]...)
	}
	args, err := object(items)
	if err != nil {
		return Command{}, err
	}
	return finish(Command{Name: name, Arguments: args})
}

// keyboard is sendkey, and type with a text in quotes.
func keyboard(name string, items []item) (Command, error) {
	c := Command{Name: "send-key", Hold: DefaultHold, Typed: name == typeText}
	for _, it := range items {
		switch {
		case it.key == "hold-time":
			ms, err := strconv.Atoi(fmt.Sprint(it.value))
			c.Hold = time.Duration(ms) * time.Millisecond
			if err != nil || c.Hold <= 0 || c.Hold > maxHold {
				return Command{}, fmt.Errorf("hold-time: %v is not a number of milliseconds from 1 to %d", it.value, maxHold.Milliseconds())
			}
		case it.key != "":
			return Command{}, fmt.Errorf("%s: %s is not known; the only option is hold-time=MILLISECONDS", name, it.key)
		case it.quoted || name == typeText:
			chords, err := typing(it.word)
			if err != nil {
				return Command{}, err
			}
			c.Chords, c.Typed = append(c.Chords, chords...), true
		default:
			keys, err := chord(it.word)
			if err != nil {
				return Command{}, err
			}
			c.Chords = append(c.Chords, keys)
		}
	}
	if len(c.Chords) == 0 {
		return Command{}, fmt.Errorf(`%s: the keys are missing, as in sendkey ctrl-alt-delete, sendkey f12, or sendkey "a text"`, name)
	}
	return c, nil
}

// wire is a command as QMP has it.
type wire struct {
	Execute   string          `json:"execute"`
	Arguments map[string]any  `json:"arguments"`
	ID        json.RawMessage `json:"id"`
}

func parseJSON(text string) (Command, error) {
	if !json.Valid([]byte(text)) {
		return Command{}, jsonProblem(text)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		return Command{}, fmt.Errorf("this is no command of QMP: %w", err)
	}
	for name := range members {
		if name == "exec-oob" {
			return Command{}, errors.New("exec-oob is not possible here: write execute")
		}
		if !slices.Contains([]string{"execute", "arguments", "id"}, name) {
			return Command{}, fmt.Errorf("%s is no member of a command: there are execute, arguments and id", brief(name))
		}
	}
	var w wire
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&w); err != nil {
		return Command{}, fmt.Errorf("this is no command of QMP: %w", err)
	}
	if !commandName.MatchString(w.Execute) {
		return Command{}, fmt.Errorf(`%s is no name of a command: write {"execute": "query-status"}`, brief(w.Execute))
	}
	return finish(Command{Name: w.Execute, Arguments: w.Arguments, ID: w.ID})
}

func jsonProblem(text string) error {
	err := json.NewDecoder(strings.NewReader(text)).Decode(new(any))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s", ErrIncomplete, brief(text))
	case err == nil:
		return fmt.Errorf("%s: something follows the command", brief(text))
	}
	return fmt.Errorf("%s is not JSON: %w", brief(text), err)
}

// finish takes the file out of a screendump: QEMU cannot create it.
func finish(c Command) (Command, error) {
	if c.Name != screendump {
		return c, nil
	}
	file, _ := c.Arguments["filename"].(string)
	if file == "" {
		return Command{}, errors.New("screendump: the file is missing, as in screendump menu.png")
	}
	args := map[string]any{}
	for name, v := range c.Arguments {
		if name != "filename" {
			args[name] = v
		}
	}
	switch {
	case args["format"] != nil, strings.HasSuffix(file, ".ppm"): // which every QEMU makes when it is told nothing
	case strings.HasSuffix(file, ".png"):
		args["format"] = "png"
	default:
		return Command{}, fmt.Errorf("screendump: %s: the picture is PNG or PPM: give the file a name that ends in .png or .ppm", brief(file))
	}
	c.Arguments, c.Picture = args, file
	return c, nil
}
