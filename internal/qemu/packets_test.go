package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"
)

// capture writes frames as QEMU does: their lengths, a negative one for what the guest has sent.
func capture(lengths ...int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, pcapMagic)
	b = append(b, make([]byte, pcapHeader-4)...)
	for _, n := range lengths {
		frame := make([]byte, frameStart)
		if n < 0 {
			n = -n
			copy(frame[6:], cardAddress())
		} else {
			copy(frame, cardAddress())
		}
		kept := min(n, frameStart)
		b = append(b, make([]byte, 8)...)
		b = binary.LittleEndian.AppendUint32(b, uint32(kept))
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
		b = append(b, frame[:kept]...)
	}
	return b
}

// TestCountPackets counts in both directions, however the pipe cuts the stream.
func TestCountPackets(t *testing.T) {
	stream := capture(60, -42, 1514, -1514, 60)
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)), "in halves": iotest.HalfReader(bytes.NewReader(stream)),
	} {
		var p packets
		if err := p.read(r); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		want := Traffic{Sent: 42 + 1514, Received: 60 + 1514 + 60, SentFrames: 2, ReceivedFrames: 3}
		if got := p.traffic(); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	var p packets
	if err := p.read(bytes.NewReader(make([]byte, 100))); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("what is no capture: %v", err)
	}
}

// FuzzCountPackets holds that no stream is counted as more frames than it has room for.
func FuzzCountPackets(f *testing.F) {
	f.Add(capture(60, -42))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var p packets
		_ = p.read(bytes.NewReader(stream))
		got := p.traffic()
		if n := got.SentFrames + got.ReceivedFrames; n < 0 || n*pcapRecord > int64(len(stream)) {
			t.Errorf("%d frames in %d bytes", n, len(stream))
		}
	})
}

// TestE2ETraffic has a real QEMU that counts: nothing for a guest that has no
// driver. What a guest with one sends is counted in the end-to-end tests.
func TestE2ETraffic(t *testing.T) {
	spec, options := realSpec(t, firmware("up\r\n", echo))
	m := startReal(t, spec, options)
	waitFor(t, m, "up", 30*time.Second)
	if got, ok := m.Traffic(); !ok || got != (Traffic{}) {
		t.Errorf("a guest that has no driver: %+v, %t", got, ok)
	}
	spec.NIC, options.RunDir = NoNIC, t.TempDir()
	without := startReal(t, spec, options)
	if got, ok := without.Traffic(); ok {
		t.Errorf("a machine without a card: %+v", got)
	}
}
