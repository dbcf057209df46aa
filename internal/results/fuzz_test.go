package results

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzToken: whatever the environment holds, ids that come out of it are
// whole words of the scope, and no error quotes the token.
func FuzzToken(f *testing.F) {
	f.Add(makeToken(`{"scp":"Actions.Results:1:2","ac":"[]"}`))
	f.Add(makeToken(`{"scp":"x Actions.Results:a:b:c Actions.Results::"}`))
	f.Add(makeToken(`{"scp":1}`))
	f.Add("a.b.c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := parseToken(token)
		if err != nil {
			if err.Error() != errToken.Error() || c != (claims{}) {
				t.Fatalf("%+v, %v", c, err)
			}
			return
		}
		_ = c.readOnly()
		ids, err := c.backend()
		if err != nil {
			if len(token) > 40 && strings.Contains(err.Error(), token) {
				t.Fatal("the token is in the error")
			}
			return
		}
		if ids.run == "" || ids.job == "" || !strings.Contains(c.Scopes, scopePrefix+ids.run+":"+ids.job) ||
			strings.ContainsAny(ids.run+ids.job, " :") {
			t.Fatalf("ids %+v of %q", ids, c.Scopes)
		}
	})
}

// FuzzReply: any reply is read or refused, the same each time, and its two
// spellings mean the same.
func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"ok":true,"signed_upload_url":"https://h/?sig=x","entry_id":"77"}`))
	f.Add([]byte(`{"Ok":true,"signedUploadUrl":"u","entryId":77}`))
	f.Add([]byte(`{"ok":"true","signed_upload_url":7,"entry_id":"-1e9","signedUploadUrl":"b"}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseReply(text)
		again, err2 := parseReply(text)
		if (err == nil) != (err2 == nil) || (r == nil) != (err != nil) {
			t.Fatalf("%v, then %v; reply %v", err, err2, r)
		}
		for _, names := range [][2]string{{"signed_upload_url", "signedUploadUrl"}, {"entry_id", "entryId"}} {
			if r.text(names[0]) != again.text(names[1]) || r.number(names[0]) != again.number(names[1]) || r.ok() != again.ok() {
				t.Fatalf("%q means two things", text)
			}
		}
		if !json.Valid(text) && err == nil {
			t.Fatalf("%q was taken", text)
		}
		(&Service{}).redact(string(text))
	})
}

func TestReply(t *testing.T) {
	for text, want := range map[string]struct {
		url string
		id  int64
		ok  bool
	}{
		`{"ok":true,"signed_upload_url":"u","entry_id":"9007199254740993"}`: {"u", 9007199254740993, true},
		`{"ok":true,"signedUploadUrl":"u","entryId":9007199254740993}`:      {"u", 9007199254740993, true},
		`{"signed_upload_url":null,"entry_id":null}`:                        {},
		`{"ok":false,"entry_id":"12x"}`:                                     {},
		`{"ok":"true","signed_upload_url":["u"],"entry_id":1.5}`:            {},
	} {
		r, err := parseReply([]byte(text))
		if err != nil || r.text("signed_upload_url") != want.url || r.number("entry_id") != want.id || r.ok() != want.ok {
			t.Errorf("%s: %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "null", "[]", "1", "<html>", `{"a":1} x`, `{"a":"` + strings.Repeat("x", maxReply) + `"}`} {
		if _, err := parseReply([]byte(text)); err == nil {
			t.Errorf("%.20q was taken", text)
		}
	}
}
