package qemu

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Traffic is what has passed a guest's network card, with the headers of its frames.
type Traffic struct {
	Sent, Received             units.Bytes // by the guest
	SentFrames, ReceivedFrames int64
}

// The headers of a capture file (libpcap's format, as QEMU's net/dump.c writes
// it: in the byte order of the host, which is little-endian wherever this runs).
const (
	pcapMagic  = 0xa1b2c3d4
	pcapHeader = 24
	pcapRecord = 16
	frameStart = 12 // bytes of a frame that are kept: where it goes, and where it comes from
)

// packets counts what passes the guest's card. QEMU itself keeps no count of
// what goes through its user network, but it can write down the beginning of
// every frame, and through a pipe that costs no disk.
type packets struct {
	*outlet

	sent, received             atomic.Int64
	sentFrames, receivedFrames atomic.Int64
}

// newPackets makes the pipe.
func newPackets(s *Spec, files *inheritance) (*packets, error) {
	p := &packets{}
	var err error
	p.outlet, s.PacketsFD, err = newOutlet(files, func(r io.Reader) {
		_ = p.read(bufio.NewReaderSize(r, 64<<10)) // what can't be understood is not counted
	})
	if err != nil {
		return nil, fmt.Errorf("counting the guest's packets: %w", err)
	}
	return p, nil
}

// read counts the frames of a capture.
func (p *packets) read(r io.Reader) error {
	var header [pcapHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(header[:]) != pcapMagic {
		return errors.New("reading the guest's packets: this is no capture")
	}
	for {
		var record [pcapRecord + frameStart]byte
		if _, err := io.ReadFull(r, record[:pcapRecord]); err != nil {
			return err
		}
		kept, size := binary.LittleEndian.Uint32(record[8:]), binary.LittleEndian.Uint32(record[12:])
		if kept > frameStart {
			return fmt.Errorf("reading the guest's packets: a frame of %d bytes where %d were asked for", kept, frameStart)
		}
		frame := record[pcapRecord : pcapRecord+kept]
		if _, err := io.ReadFull(r, frame); err != nil {
			return err
		}
		if len(frame) == frameStart && bytes.Equal(frame[frameStart/2:], cardAddress()) {
			p.sent.Add(int64(size))
			p.sentFrames.Add(1)
			continue
		}
		p.received.Add(int64(size))
		p.receivedFrames.Add(1)
	}
}

// traffic is what was counted so far.
func (p *packets) traffic() Traffic {
	return Traffic{
		Sent: units.Bytes(p.sent.Load()), Received: units.Bytes(p.received.Load()),
		SentFrames: p.sentFrames.Load(), ReceivedFrames: p.receivedFrames.Load(),
	}
}

// Traffic is what has passed the guest's network card, also after the machine's
// end; false for a machine without one.
func (m *Machine) Traffic() (Traffic, bool) {
	if m.packets == nil {
		return Traffic{}, false
	}
	return m.packets.traffic(), true
}
