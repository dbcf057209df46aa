package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		`query-status`:                                         `query-status`,
		"\t query-status ":                                     `query-status`,
		`{"execute":"query-status"}`:                           `query-status`,
		`{"execute":"stop","id":"7"}`:                          `stop id="7"`,
		`device_add driver=usb-kbd`:                            `device_add {"driver":"usb-kbd"}`,
		`a b=12 c=-1.5 d=012 e=1e3`:                            `a {"b":12,"c":-1.5,"d":"012","e":1e3}`,
		`a b=true c=false d=null e=no`:                         `a {"b":true,"c":false,"d":null,"e":"no"}`,
		`a b="12" c='true' d=`:                                 `a {"b":"12","c":"true","d":""}`,
		`a b="x y\n\u0041\x42\"" c='\n"'`:                      `a {"b":"x y\nAB\"","c":"\\n\""}`,
		`a b={"c": [1, "x y"]} d=[ ]`:                          `a {"b":{"c":[1,"x y"]},"d":[]}`,
		`a b.c=1 b.d.e=x`:                                      `a {"b":{"c":1,"d":{"e":"x"}}}`,
		`a {"b": 10000000000000000001}`:                        `a {"b":10000000000000000001}`,
		`a b=http://x/?y=z`:                                    `a {"b":"http://x/?y=z"}`,
		`hmp info pic`:                                         `human-monitor-command {"command-line":"info pic"}`,
		`info pic`:                                             `human-monitor-command {"command-line":"info pic"}`,
		`hmp "sendkey esc"`:                                    `human-monitor-command {"command-line":"sendkey esc"}`,
		`hmp x /s "a" b`:                                       `human-monitor-command {"command-line":"x /s \"a\" b"}`,
		`human-monitor-command "sendkey esc"`:                  `human-monitor-command {"command-line":"sendkey esc"}`,
		`human-monitor-command sendkey esc`:                    `human-monitor-command {"command-line":"sendkey esc"}`,
		`human-monitor-command command-line="i s" cpu-index=0`: `human-monitor-command {"command-line":"i s","cpu-index":0}`,
		`sendkey ctrl-alt-delete`:                              `send-key [ctrl-alt-delete] 50ms`,
		`sendkey CTRL-ALT-F2 enter Del hold-time=200`:          `send-key [ctrl-alt-f2 ret delete] 200ms`,
		`sendkey a A / 0x1c`:                                   `send-key [a shift-a slash 0x1c] 50ms`,
		`sendkey "Hi!" ret`:                                    `send-key [shift-h i shift-1 ret] 50ms typed`,
		`type ls -l "a b"`:                                     `send-key [l s spc minus l spc shift-apostrophe a spc b shift-apostrophe] 50ms typed`,
		`type "ls\n" hold-time=5`:                              `send-key [l s ret] 5ms typed`,
		`send-key keys=[{"type":"qcode","data":"a"}]`:          `send-key {"keys":[{"data":"a","type":"qcode"}]}`,
		`screendump menu.png`:                                  `screendump {"format":"png"} > menu.png`,
		`screendump "a b.ppm" device=vga`:                      `screendump {"device":"vga"} > a b.ppm`,
		`{"execute":"screendump","arguments":{"filename":"/tmp/screen.ppm"}}`: `screendump {} > /tmp/screen.ppm`,
		`screendump filename=x format=png`:                                    `screendump {"format":"png"} > x`,
	} {
		c, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := describe(c); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// describe writes all of a command.
func describe(c Command) string {
	text := c.Name
	if c.Arguments != nil {
		text += " " + string(encode(c.Arguments))
	}
	if c.Chords != nil {
		var chords []string
		for _, chord := range c.Chords {
			chords = append(chords, strings.Join(chord, "-"))
		}
		text += fmt.Sprintf(" %s %v", chords, c.Hold)
	}
	if c.Typed {
		text += " typed"
	}
	if c.ID != nil {
		text += " id=" + string(c.ID)
	}
	if c.Picture != "" {
		text += " > " + c.Picture
	}
	return text
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                                  `"" is no name of a command`,
		`=x`:                                `"=x" is no name of a command`,
		`query-status now`:                  `"now" is not key=value`,
		`a b=1 b=2`:                         `b is there twice`,
		`a b=1 b.c=2`:                       `b.c: b is no object`,
		`a b="x`:                            `b: no " ends "\"x"`,
		`a b='x`:                            `b: no ' ends`,
		`a b="\q"`:                          `is no escape: write \\ for a backslash`,
		`a b="x"y`:                          `there is no blank before "y"`,
		`a b={"c"`:                          `b: "{\"c\"" is not JSON: it ends too early`,
		`a {"b":1} c`:                       `"c" follows the arguments`,
		`{"execute":"stop"`:                 `the JSON ends too early`,
		`{"execute":"stop"} x`:              `something follows the command`,
		`{"execute":"stop",}`:               `is not JSON: invalid character '}'`,
		`{"execute":"stop","argument":{}}`:  `"argument" is no member of a command`,
		`{"exec-oob":"stop"}`:               `exec-oob is not possible here`,
		`{"execute":5}`:                     `this is no command of QMP`,
		`{"execute":"a b"}`:                 `"a b" is no name of a command`,
		`{}`:                                `"" is no name of a command: write {"execute": "query-status"}`,
		`hmp`:                               `hmp: the command for the human monitor is missing`,
		`hmp ""`:                            `is missing`,
		`sendkey`:                           `sendkey: the keys are missing`,
		`sendkey ctrl-alt-delet`:            `"delet" is no key (in "ctrl-alt-delet"): did you mean delete`,
		`sendkey root`:                      `to have a text typed, write type root`,
		`sendkey ctrl-`:                     `"" is no key (in "ctrl-")`,
		`sendkey 0xzz`:                      `"0xzz" is no scan code`,
		`sendkey a hold-time=soon`:          `hold-time: soon is not a number of milliseconds from 1 to 10000`,
		`sendkey a hold-time=0`:             `hold-time: 0 is not`,
		`sendkey a count=2`:                 `sendkey: count is not known; the only option is hold-time`,
		`type`:                              `there is no text to type`,
		`type ""`:                           `there is no text to type`,
		`type Grüße`:                        `there is no 'ü' on the US keyboard`,
		`screendump`:                        `screendump: the file is missing`,
		`screendump menu.jpg`:               `"menu.jpg": the picture is PNG or PPM`,
		`{"execute":"screendump"}`:          `the file is missing`,
		`screendump a.png b.png`:            `"b.png" is not key=value`,
		strings.Repeat("long-", 30) + "!":   `"long-long-long-long-long-long-long-long-"... is no name`,
		`human-monitor-command cpu-index=`:  ``, // QEMU's to refuse
		`{"execute":"stop","arguments":[]}`: `this is no command of QMP`,
	} {
		c, err := Parse(text)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %+v, %v; want %s", text, c, err, want)
		}
		if strings.Contains(want, "ends too early") != errors.Is(err, ErrIncomplete) && strings.HasPrefix(text, "{") {
			t.Errorf("%s: %v is, or is not, ErrIncomplete", text, err)
		}
	}
}

func TestParseWords(t *testing.T) {
	for _, tc := range []struct {
		words []string
		want  string
	}{
		{[]string{"query-status"}, `query-status`},
		{[]string{`{"execute":"stop"}`}, `stop`},
		{[]string{"device_del id=a"}, `device_del {"id":"a"}`},
		{[]string{"device_add", "driver=usb-kbd", "id=two words", "bus=", "n=5", `s="5"`}, `device_add {"bus":"","driver":"usb-kbd","id":"two words","n":5,"s":"5"}`},
		{[]string{"a", `b={"c": 1}`}, `a {"b":{"c":1}}`},
		{[]string{"a", `{"b": 1}`}, `a {"b":1}`},
		{[]string{"hmp", "info", "pic"}, `human-monitor-command {"command-line":"info pic"}`},
		{[]string{"human-monitor-command", "sendkey esc"}, `human-monitor-command {"command-line":"sendkey esc"}`},
		{[]string{"sendkey", "ctrl-c", "typed text"}, `send-key [ctrl-c t y p e d spc t e x t] 50ms typed`},
		{[]string{"sendkey", "typed\n"}, `send-key [t y p e d ret] 50ms typed`},
		{[]string{"type", "a", "b"}, `send-key [a spc b] 50ms typed`},
		{[]string{"screendump", "a b.png"}, `screendump {"format":"png"} > a b.png`},
	} {
		c, err := ParseWords(tc.words)
		if err != nil {
			t.Errorf("%q: %v", tc.words, err)
		} else if got := describe(c); got != tc.want {
			t.Errorf("%q: %s, want %s", tc.words, got, tc.want)
		}
	}
	for want, words := range map[string][]string{
		"there is no command":    nil,
		`follows its value`:      {"a", `b={} c`},
		`"x y" is not key=value`: {"stop", "x y"},
	} {
		if c, err := ParseWords(words); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %s", words, c, err, want)
		}
	}
}

// TestShown holds that a log shows no secret.
func TestShown(t *testing.T) {
	for text, want := range map[string]string{
		`type hunter2`:        `send-key (7 keys typed)`,
		`sendkey ctrl-alt-f2`: `send-key ctrl-alt-f2`,
		`set_password protocol=vnc password=hunter2`:                         `set_password password="***" protocol="vnc"`,
		`object-add qom-type=secret id=s data=hunter2`:                       `object-add data="***" id="s" qom-type="secret"`,
		`{"execute":"a","arguments":{"b":{"new-password":"hunter2","c":1}}}`: `a b={"c":1,"new-password":"***"}`,
		`hmp set_password vnc hunter2`:                                       `human-monitor-command command-line="set_password ***"`,
		`hmp change vnc password hunter2`:                                    `human-monitor-command command-line="change vnc password ***"`,
		`hmp sendkey esc`:                                                    `human-monitor-command command-line="sendkey esc"`,
		`a {"b": [{"password": "hunter2"}]}`:                                 `a b=[{"password":"***"}]`,
		`blockdev-add {"driver": "null-co", "node-name": "zero"}`:            `blockdev-add driver="null-co" node-name="zero"`,
		`chardev-add id=a data=shown`:                                        `chardev-add data="shown" id="a"`,
		`screendump menu.png`:                                                `screendump menu.png format="png"`,
		`hmp ` + strings.Repeat("x", 300):                                    `human-monitor-command command-line="` + strings.Repeat("x", 200-len(`human-monitor-command command-line="`)) + `...`,
		`a b="##[add-mask]x"`:                                                `a b="\u0023#[add-mask]x"`,
	} {
		c, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestAnswerIsOneLine(t *testing.T) {
	a := Answer{ID: json.RawMessage("[ 1 ]"), Return: json.RawMessage("{\n\"a\": \"<##[x]\\u0000\"\n}")}
	if got, want := string(a.JSON()), `{"return":{"a":"<\u0023#[x]\u0000"},"id":[1]}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := string(Refused(nil, "GenericError", errors.New("a\nb")).JSON()), `{"error":{"class":"GenericError","desc":"a\nb"}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// FuzzParse holds that a command that was understood is the same when it is
// written as QMP has it, and that what is shown of it is one line.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"query-status", `a b=1 c.d="x\n" e={"f":[null]}`, `{"execute":"a","arguments":{"b":1},"id":2}`, `sendkey ctrl-alt-delete "x" 0x1c hold-time=5`,
		"type x", "screendump a.png", "hmp info", `a {"b":1}`, `a b='`, `{"execute"`, "a password=x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(c.Name+string(encode(c.Arguments)), "\n\r") {
			t.Errorf("%q is shown as %q", text, c.String())
		}
		for _, chord := range c.Chords {
			if _, err := json.Marshal(chord.arguments(c.Hold.Milliseconds())); err != nil || len(chord) == 0 {
				t.Errorf("%q: %v, %v", text, chord, err)
			}
		}
		if len(c.Chords) > 0 {
			if c.Hold < time.Millisecond || c.Hold > maxHold {
				t.Errorf("%q holds for %v", text, c.Hold)
			}
			return
		}
		w := map[string]any{"execute": c.Name, "arguments": map[string]any{}}
		for name, v := range c.Arguments {
			w["arguments"].(map[string]any)[name] = v
		}
		if c.Picture != "" {
			w["arguments"].(map[string]any)["filename"] = c.Picture
		}
		again, err := Parse(string(encode(w)))
		again.ID = c.ID
		if len(c.Arguments) == 0 && len(again.Arguments) == 0 {
			again.Arguments = c.Arguments
		}
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%q is %+v, and as %s it is %+v, %v", text, c, encode(w), again, err)
		}
	})
}
