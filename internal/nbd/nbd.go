// Package nbd serves one read-only disk over one connection, by the part of
// the Network Block Device protocol that QEMU speaks (doc/proto.md of the NBD
// project): the fixed newstyle handshake, and simple replies.
package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sync/semaphore"
)

// Disk is what is served. Its size is a multiple of 512 bytes: QEMU 7.2 waits for
// ever for the end of another one. ReadAt fills p or fails, may take its time,
// and is called by several goroutines. An error is what the guest's disk would
// have: it is passed on as EIO, and can't be taken back.
type Disk interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, offset int64) error
}

// The numbers of the protocol.
const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicReply   = 0x0003e889045565a9
	magicRequest = 0x25609513
	magicSimple  = 0x67446698

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	flagHasFlags = 1 << 0
	flagReadOnly = 1 << 1

	optExportName = 1
	optAbort      = 2
	optList       = 3
	optInfo       = 6
	optGo         = 7

	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repErrUnsup    = 1<<31 + 1
	repErrInvalid  = 1<<31 + 3
	repErrTooBig   = 1<<31 + 9
	infoExport     = 0
	infoBlockSize  = 3
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	errnoPerm      = 1
	errnoIO        = 5
	errnoInvalid   = 22
	preferredBlock = 4096
)

// Limits of what a client may ask for.
const (
	maxOption = 64 << 10
	maxRead   = 2 << 20  // of one request; QEMU is told and cuts larger ones
	maxHeld   = 16 << 20 // of all requests that are being answered
	maxActive = 64
)

// ErrProtocol says that the peer does not speak the protocol as it should.
var ErrProtocol = errors.New("the client does not speak NBD as it should")

// Serve answers a client until it disconnects or ctx ends, closes the connection
// and returns when no read is going on any more. A client that closes the
// connection is no error.
func Serve(ctx context.Context, conn net.Conn, disk Disk) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // it ends what reads and writes
	defer stop()
	s := &session{conn: conn, disk: disk, held: semaphore.NewWeighted(maxHeld), active: semaphore.NewWeighted(maxActive)}
	err := s.serve(ctx)
	cancel()
	_ = conn.Close() // nothing is left to be said
	s.reads.Wait()
	for _, end := range []error{io.EOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} { // a client that was killed
		if errors.Is(err, end) {
			return nil
		}
	}
	return err
}

// session is one connection.
type session struct {
	conn   net.Conn
	disk   Disk
	reads  sync.WaitGroup
	held   *semaphore.Weighted // bytes
	active *semaphore.Weighted // requests
	reply  sync.Mutex          // held while a reply is written
}

func (s *session) serve(ctx context.Context) error {
	if done, err := s.handshake(); done || err != nil {
		return err
	}
	for {
		if err := s.request(ctx); err != nil {
			return err
		}
	}
}

// read fills p. The end of the connection within a message is none between two.
func (s *session) read(p []byte) error {
	if _, err := io.ReadFull(s.conn, p); err != nil {
		return fmt.Errorf("reading from the NBD client: %w", err)
	}
	return nil
}

func (s *session) write(p ...[]byte) error {
	s.reply.Lock()
	defer s.reply.Unlock()
	for _, part := range p {
		if _, err := s.conn.Write(part); err != nil {
			return fmt.Errorf("writing to the NBD client: %w", err)
		}
	}
	return nil
}

// flags are those of the export.
const flags = flagHasFlags | flagReadOnly

// handshake haggles over options. It tells whether the client wants nothing more.
func (s *session) handshake() (done bool, err error) {
	hello := binary.BigEndian.AppendUint64(nil, magicServer)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if err := s.write(hello); err != nil {
		return false, err
	}
	var client [4]byte
	if err := s.read(client[:]); err != nil {
		return false, err
	}
	offered := binary.BigEndian.Uint32(client[:])
	if offered&^(flagFixedNewstyle|flagNoZeroes) != 0 || offered&flagFixedNewstyle == 0 {
		return false, fmt.Errorf("%w: it has flags %#x", ErrProtocol, offered)
	}
	for {
		option, data, err := s.option()
		if err != nil {
			return false, err
		}
		switch option {
		case optExportName:
			return false, s.exportName(offered&flagNoZeroes != 0)
		case optAbort:
			return true, s.answer(option, repAck, nil)
		case optGo:
			if ok, err := s.info(option, data); ok || err != nil {
				return false, err
			}
		case optInfo:
			_, err = s.info(option, data)
		case optList:
			if err = s.answer(option, repServer, make([]byte, 4)); err == nil { // one export without a name
				err = s.answer(option, repAck, nil)
			}
		default:
			err = s.answer(option, repErrUnsup, nil)
		}
		if err != nil {
			return false, err
		}
	}
}

// option reads the next option. One whose data is too long is answered here.
func (s *session) option() (option uint32, data []byte, err error) {
	for {
		var head [16]byte
		if err := s.read(head[:]); err != nil {
			return 0, nil, err
		}
		if magic := binary.BigEndian.Uint64(head[:]); magic != magicOption {
			return 0, nil, fmt.Errorf("%w: an option begins with %#x", ErrProtocol, magic)
		}
		option, n := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
		if n <= maxOption {
			data = make([]byte, n)
			return option, data, s.read(data)
		}
		if option == optExportName {
			return 0, nil, fmt.Errorf("%w: an export's name has %d bytes", ErrProtocol, n)
		}
		if _, err := io.CopyN(io.Discard, s.conn, int64(n)); err != nil {
			return 0, nil, fmt.Errorf("reading from the NBD client: %w", err)
		}
		if err := s.answer(option, repErrTooBig, nil); err != nil {
			return 0, nil, err
		}
	}
}

// answer replies to an option.
func (s *session) answer(option, kind uint32, data []byte) error {
	reply := binary.BigEndian.AppendUint64(nil, magicReply)
	reply = binary.BigEndian.AppendUint32(reply, option)
	reply = binary.BigEndian.AppendUint32(reply, kind)
	reply = binary.BigEndian.AppendUint32(reply, uint32(len(data))) // a few bytes
	return s.write(append(reply, data...))
}

// exportName is the old way into the transmission, which has no answer but the
// export. Every name is that of the one disk.
func (s *session) exportName(short bool) error {
	reply := binary.BigEndian.AppendUint64(nil, uint64(s.disk.Size())) // a size is not negative
	reply = binary.BigEndian.AppendUint16(reply, flags)
	if !short {
		reply = append(reply, make([]byte, 124)...)
	}
	return s.write(reply)
}

// info tells what the disk is like. It tells whether the option was in order.
func (s *session) info(option uint32, data []byte) (ok bool, err error) {
	// The length of the name, the name, and the number of the informations
	// that the client asks for; it gets all that there are.
	if len(data) < 6 || uint64(binary.BigEndian.Uint32(data)) > uint64(len(data)-6) {
		return false, s.answer(option, repErrInvalid, nil)
	}
	export := binary.BigEndian.AppendUint16(nil, infoExport)
	export = binary.BigEndian.AppendUint64(export, uint64(s.disk.Size())) // a size is not negative
	export = binary.BigEndian.AppendUint16(export, flags)
	block := binary.BigEndian.AppendUint16(nil, infoBlockSize)
	for _, size := range []uint32{1, preferredBlock, maxRead} {
		block = binary.BigEndian.AppendUint32(block, size)
	}
	for _, reply := range []struct {
		kind uint32
		data []byte
	}{{repInfo, export}, {repInfo, block}, {repAck, nil}} {
		if err := s.answer(option, reply.kind, reply.data); err != nil {
			return false, err
		}
	}
	return true, nil
}

// request takes one request. Reads are answered while the next ones are taken.
func (s *session) request(ctx context.Context) error {
	var head [28]byte
	if err := s.read(head[:]); err != nil {
		return err
	}
	if magic := binary.BigEndian.Uint32(head[:]); magic != magicRequest {
		return fmt.Errorf("%w: a request begins with %#x", ErrProtocol, magic)
	}
	command := binary.BigEndian.Uint16(head[6:])
	cookie := [8]byte(head[8:16])
	offset, length := binary.BigEndian.Uint64(head[16:]), binary.BigEndian.Uint32(head[24:])
	switch command {
	case cmdRead:
		return s.readDisk(ctx, cookie, offset, length)
	case cmdWrite:
		if _, err := io.CopyN(io.Discard, s.conn, int64(length)); err != nil {
			return fmt.Errorf("reading from the NBD client: %w", err)
		}
		return s.done(cookie, errnoPerm, nil)
	case cmdFlush:
		return s.done(cookie, 0, nil)
	case cmdDisconnect:
		s.reads.Wait() // what was asked for before is answered
		return io.EOF
	}
	return s.done(cookie, errnoInvalid, nil)
}

// readDisk answers a read when there is room for what it wants.
func (s *session) readDisk(ctx context.Context, cookie [8]byte, offset uint64, length uint32) error {
	size := uint64(s.disk.Size()) // it is not negative
	if length == 0 || length > maxRead || offset > math.MaxInt64 || offset >= size || uint64(length) > size-offset {
		return s.done(cookie, errnoInvalid, nil)
	}
	if err := s.active.Acquire(ctx, 1); err != nil {
		return err
	}
	if err := s.held.Acquire(ctx, int64(length)); err != nil {
		s.active.Release(1)
		return err
	}
	s.reads.Go(func() {
		defer s.active.Release(1)
		defer s.held.Release(int64(length))
		p, errno := make([]byte, length), uint32(0)
		if err := s.disk.ReadAt(ctx, p, int64(offset)); err != nil {
			p, errno = nil, errnoIO
		}
		if err := s.done(cookie, errno, p); err != nil {
			_ = s.conn.Close() // no answer can be missing: it ends the session
		}
	})
	return nil
}

// done answers a request.
func (s *session) done(cookie [8]byte, errno uint32, data []byte) error {
	reply := binary.BigEndian.AppendUint32(nil, magicSimple)
	reply = binary.BigEndian.AppendUint32(reply, errno)
	return s.write(append(reply, cookie[:]...), data)
}
