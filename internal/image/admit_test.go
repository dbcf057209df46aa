package image

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

func TestFeed(t *testing.T) {
	data := rawDisk(1 << 20)
	whole := newFeed(t.Context(), iotest.HalfReader(bytes.NewReader(data)), nil)
	got, err := io.ReadAll(whole)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if have, err := whole.wait(); err != nil || have != (sums{sha(data), sha2(data)}) {
		t.Errorf("hashes %+v, %v", have, err)
	}
	// A reader that stops early is not the file's fault, but there is no hash.
	early := newFeed(t.Context(), bytes.NewReader(data), nil)
	if _, err := io.ReadFull(early, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if have, err := early.wait(); err != nil || have != (sums{}) {
		t.Errorf("hashes %+v, %v", have, err)
	}
	lost := errors.New("connection lost")
	failing := newFeed(t.Context(), io.MultiReader(bytes.NewReader(data), iotest.ErrReader(lost)), nil)
	if _, err := io.Copy(io.Discard, failing); !errors.Is(err, lost) {
		t.Errorf("the reader got %v", err)
	}
	if _, err := failing.wait(); !errors.Is(err, lost) {
		t.Errorf("error %v", err)
	}
}

// TestSignerSeesTheWholeFile gives a signer a file whose beginning alone is
// what was signed.
func TestSignerSeesTheWholeFile(t *testing.T) {
	data := rawDisk(1 << 20)
	key := newKey(t, time.Now().Add(-time.Hour), 0)
	sig, err := newSigner([]byte(public(t, key)), []byte(sign(t, key, data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		data []byte
		err  error
	}{{data, nil}, {append(bytes.Clone(data), 0), ErrSignature}, {data[:len(data)-1], ErrSignature}, {nil, ErrSignature}} {
		f := newFeed(t.Context(), bytes.NewReader(tc.data), sig)
		_, err := io.Copy(io.Discard, f)
		_, verdict := f.wait()
		if !errors.Is(err, tc.err) || !errors.Is(verdict, tc.err) {
			t.Errorf("%d bytes: %v, %v; want %v", len(tc.data), err, verdict, tc.err)
		}
	}
}

func TestMeter(t *testing.T) {
	var got []Report
	now := time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC)
	s := &Store{Now: func() time.Time { return now }, Progress: func(r Report) { got = append(got, r) }}
	m := s.meter(StepFetch, "x")
	const mib = 1 << 20
	for _, at := range []struct {
		after time.Duration
		done  int64
	}{
		{time.Second, 100 * mib},            // was there before: no rate
		{100 * time.Millisecond, 101 * mib}, // too soon
		{900 * time.Millisecond, 110 * mib},
		{time.Second, 120 * mib},
		{10 * time.Millisecond, 200 * mib}, // the end is always told
		{time.Second, 200 * mib},
	} {
		now = now.Add(at.after)
		m.at(at.done, 200*mib)
	}
	if len(got) != 5 {
		t.Fatalf("reports: %+v", got)
	}
	if got[0].Rate != 0 || got[0].Left != 0 || got[0].Done != 100*units.MiB || got[0].Total != 200*units.MiB {
		t.Errorf("the first is %+v", got[0])
	}
	if got[1].Rate != 10*units.MiB || got[1].Left != 9*time.Second || got[2].Left != 8*time.Second {
		t.Errorf("the next are %+v and %+v", got[1], got[2])
	}
	if got[3].Done != 200*units.MiB || got[3].Left != 0 {
		t.Errorf("the last is %+v", got[3])
	}
	m = s.meter(StepUnpack, "y")
	now = now.Add(time.Second)
	if m.at(5, -1); got[len(got)-1].Total != 0 {
		t.Errorf("without a total: %+v", got[len(got)-1])
	}
}
