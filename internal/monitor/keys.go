package monitor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/spelling"
)

// A Chord is keys that are held down together, in the order in which they are
// pressed: each a name of QEMU's (QKeyCode in qapi/ui.json), or a scan code as 0x1c.
type Chord []string

// keyNames are all of QEMU's; an older one refuses those that it does not know.
const keyNames = `shift shift_r alt alt_r ctrl ctrl_r menu esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab
q w e r t y u i o p bracket_left bracket_right ret a s d f g h j k l semicolon apostrophe grave_accent backslash
z x c v b n m comma dot slash asterisk spc caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock
kp_divide kp_multiply kp_subtract kp_add kp_enter kp_decimal sysrq kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9
less f11 f12 print home pgup pgdn end left up down right insert delete stop again props undo front copy open paste
find cut lf help meta_l meta_r compose pause ro hiragana henkan yen muhenkan katakanahiragana kp_comma kp_equals
power sleep wake audionext audioprev audiostop audioplay audiomute volumeup volumedown mediaselect mail calculator
computer ac_home ac_back ac_forward ac_refresh ac_bookmarks lang1 lang2 f13 f14 f15 f16 f17 f18 f19 f20 f21 f22 f23 f24`

// otherNames are what people and other programs call some of them.
var otherNames = map[string]string{
	"enter": "ret", "return": "ret", "escape": "esc", "space": "spc", "del": "delete", "ins": "insert",
	"pageup": "pgup", "pagedown": "pgdn", "control": "ctrl", "win": "meta_l", "super": "meta_l", "bs": "backspace",
}

// layout is which keys of a US keyboard make a character.
var layout = makeLayout()

func makeLayout() map[rune]Chord {
	keys := map[rune]Chord{'\n': {"ret"}, '\r': {"ret"}, '\t': {"tab"}, '\b': {"backspace"}, 0x1b: {"esc"}, 0x7f: {"delete"}, ' ': {"spc"}}
	for c := 'a'; c <= 'z'; c++ {
		keys[c], keys[c-'a'+'A'] = Chord{string(c)}, Chord{"shift", string(c)}
	}
	for i, c := range "0123456789" {
		keys[c], keys[rune(")!@#$%^&*("[i])] = Chord{string(c)}, Chord{"shift", string(c)}
	}
	for name, pair := range map[string]string{
		"minus": "-_", "equal": "=+", "bracket_left": "[{", "bracket_right": "]}", "semicolon": ";:", "apostrophe": `'"`,
		"grave_accent": "`~", "backslash": `\|`, "comma": ",<", "dot": ".>", "slash": "/?",
	} {
		keys[rune(pair[0])], keys[rune(pair[1])] = Chord{name}, Chord{"shift", name}
	}
	return keys
}

// typing is how a text is typed on a US keyboard.
func typing(text string) ([]Chord, error) {
	var chords []Chord
	for _, c := range text {
		chord, ok := layout[c]
		if !ok {
			return nil, fmt.Errorf("there is no %q on the US keyboard that types here", c)
		}
		chords = append(chords, chord)
	}
	if len(chords) == 0 {
		return nil, fmt.Errorf("there is no text to type")
	}
	return chords, nil
}

// chord reads ctrl-alt-delete, f12, or a character such as A or /.
func chord(word string) (Chord, error) {
	if runes := []rune(word); len(runes) == 1 {
		return typing1(runes[0])
	}
	known := strings.Fields(keyNames)
	var keys Chord
	for name := range strings.SplitSeq(strings.ToLower(word), "-") {
		if other, ok := otherNames[name]; ok {
			name = other
		}
		if code, ok := strings.CutPrefix(name, "0x"); ok {
			if n, err := strconv.ParseUint(code, 16, 16); err != nil || n == 0 {
				return nil, fmt.Errorf("%q is no scan code of a key: write it as 0x1c", name)
			}
		} else if !slices.Contains(known, name) {
			return nil, unknownKey(word, name, known)
		}
		keys = append(keys, name)
	}
	return keys, nil
}

func typing1(c rune) (Chord, error) {
	chords, err := typing(string(c))
	if err != nil {
		return nil, err
	}
	return chords[0], nil
}

func unknownKey(word, name string, known []string) error {
	text := fmt.Sprintf("%q is no key", name)
	if name != strings.ToLower(word) {
		text += fmt.Sprintf(" (in %q)", word)
	}
	near := slices.DeleteFunc(spelling.Near(name, known), func(k string) bool { return spelling.Distance(name, k) > 1 }) // most names are short
	if len(near) > 0 {
		return fmt.Errorf("%s: did you mean %s?", text, strings.Join(near, " or "))
	}
	return fmt.Errorf("%s: keys are joined by -, as in ctrl-alt-delete; to have a text typed, write type %s", text, word)
}

// arguments are those of send-key.
func (c Chord) arguments(hold int64) map[string]any {
	keys := make([]map[string]any, len(c))
	for i, name := range c {
		keys[i] = map[string]any{"type": "qcode", "data": name}
		if code, ok := strings.CutPrefix(name, "0x"); ok {
			n, _ := strconv.ParseUint(code, 16, 16) // as chord has seen
			keys[i] = map[string]any{"type": "number", "data": json.Number(strconv.FormatUint(n, 10))}
		}
	}
	return map[string]any{"keys": keys, "hold-time": hold}
}
