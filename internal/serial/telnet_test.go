package serial

import (
	"bytes"
	"testing"
)

func TestTelnet(t *testing.T) {
	var s Telnet
	data, reply := s.Decode([]byte("ls\r\x00\xff\xff\xff\xf1\xff\xfb\x03x\r\n\xff\xfa\x18\x00vt\xff\xff100\xff\xf0y\xff\xf4"))
	if want := "ls\r\xffx\ry\x03"; string(data) != want || len(reply) != 0 {
		t.Errorf("data %q, want %q; reply %q", data, want, reply)
	}
	// Options that were not offered are refused, and those that were are not confirmed again.
	_, reply = s.Decode([]byte("\xff\xfb\x18\xff\xfd\x05\xff\xfd\x01\xff\xfe\x05\xff\xfc\x18\xff\xfb\x00"))
	if want := "\xff\xfe\x18\xff\xfc\x05"; string(reply) != want {
		t.Errorf("reply %q, want %q", reply, want)
	}
	if got, want := string(s.Encode([]byte("a\xff\rb\r\n"))), "a\xff\xff\r\x00b\r\n"; got != want {
		t.Errorf("encoded %q, want %q", got, want)
	}
	// The client sends all bytes as they are now (WILL BINARY, above), and takes them so after DO.
	if data, _ = s.Decode([]byte("\r\x00\r\n\xff\xfd\x00")); string(data) != "\r\x00\r\n" {
		t.Errorf("binary data %q", data)
	}
	if got, want := string(s.Encode([]byte("\rb"))), "\rb"; got != want {
		t.Errorf("encoded %q, want %q", got, want)
	}
}

// FuzzTelnet: how the bytes are cut makes no difference, what the encoder writes
// for a binary client is what its decoder reads, and there are no endless replies.
func FuzzTelnet(f *testing.F) {
	f.Add([]byte("ls\r\x00\xff\xfb\x03\xff\xfa\x18\x00\xff\xf0y\xff\xff"), uint16(5))
	f.Add([]byte("\r\xff\xf1\n\xff\xfd\x00\r\x00"), uint16(2))
	f.Fuzz(func(t *testing.T, p []byte, cut uint16) {
		at := min(int(cut), len(p))
		var whole, parts Telnet
		data, reply := whole.Decode(p)
		data1, reply1 := parts.Decode(p[:at])
		data2, reply2 := parts.Decode(p[at:])
		if got := append(data1, data2...); !bytes.Equal(got, data) {
			t.Fatalf("%q cut at %d is %q, whole %q", p, at, got, data)
		}
		if got := append(reply1, reply2...); !bytes.Equal(got, reply) || len(reply) > len(p) {
			t.Fatalf("%q cut at %d is answered with %q, whole %q", p, at, got, reply)
		}
		var out, out2 Telnet
		text := out.Encode(p)
		if got := append(out2.Encode(p[:at]), out2.Encode(p[at:])...); !bytes.Equal(got, text) {
			t.Fatalf("%q cut at %d is encoded as %q, whole %q", p, at, got, text)
		}
		binary := Telnet{binaryIn: true, binaryOut: true}
		if got, _ := binary.Decode(binary.Encode(p)); !bytes.Equal(got, p) {
			t.Fatalf("%q came back as %q", p, got)
		}
	})
}
