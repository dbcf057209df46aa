package units

import (
	"errors"
	"testing"
)

func TestParseBytes(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Bytes
	}{
		{"2G", 2 * GiB}, {"1536M", 1536 * MiB}, {"512", 512 * MiB}, {" 4 g ", 4 * GiB},
		{"64K", 64 * KiB}, {"1T", TiB}, {"2GiB", 2 * GiB}, {"2gb", 2 * GiB},
	} {
		got, err := ParseBytes(tc.text)
		if err != nil || got != tc.want {
			t.Errorf("ParseBytes(%q) = %v, %v; want %v", tc.text, got, err, tc.want)
		}
	}
	for _, text := range []string{"", "0", "-1G", "1.5G", "G", "2X", "9999999999T", "2G2"} {
		if got, err := ParseBytes(text); !errors.Is(err, ErrSize) {
			t.Errorf("ParseBytes(%q) = %v, %v; want ErrSize", text, got, err)
		}
	}
}

func TestStrings(t *testing.T) {
	for _, tc := range []struct {
		b            Bytes
		exact, human string
	}{
		{2 * GiB, "2G", "2 GiB"}, {1536 * MiB, "1536M", "1.5 GiB"}, {700, "700B", "700 B"},
		{KiB, "1K", "1 KiB"}, {0, "0B", "0 B"}, {4191682560, "4093440K", "3.9 GiB"},
	} {
		if got := tc.b.String(); got != tc.exact {
			t.Errorf("%d.String() = %q, want %q", int64(tc.b), got, tc.exact)
		}
		if got := tc.b.Human(); got != tc.human {
			t.Errorf("%d.Human() = %q, want %q", int64(tc.b), got, tc.human)
		}
	}
}

// FuzzParseBytes holds that what String writes, ParseBytes reads back.
func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"2G", "1536M", "7", "64KiB", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBytes(text)
		if err != nil {
			return
		}
		if b <= 0 {
			t.Fatalf("ParseBytes(%q) = %d without an error", text, b)
		}
		if again, err := ParseBytes(b.String()); err != nil || again != b {
			t.Fatalf("%q: %v written as %q and read as %v, %v", text, int64(b), b.String(), int64(again), err)
		}
	})
}
