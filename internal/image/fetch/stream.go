package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// errOutdated ends the use of a part file that is of another version.
var errOutdated = errors.New("what is left of an earlier download is of another version; starting again")

// enoughProgress is what a connection must have brought to count as one that
// worked: a server that cuts after every byte is given up.
const enoughProgress = 64 << 10

// Stream is a file that is being received. It is read by one goroutine.
type Stream struct {
	c    *Client
	r    Request
	http *http.Client
	part *os.File

	pos   int64 // how much was read by our reader
	have  int64 // how much is in the part file
	notes notes // of the file that is being received

	conn     *connection // nil between connections
	complete bool
	patience *patience
	since    int64 // have, at the last failure
}

// notes are kept beside the part file.
type notes struct {
	Name               string
	ETag, LastModified string
	Total              int64 // -1 when not known
}

// validator is what If-Range needs: a strong ETag, or the date. A weak ETag
// does not promise the same bytes.
func (n notes) validator() string {
	if n.ETag != "" && !strings.HasPrefix(n.ETag, "W/") {
		return n.ETag
	}
	return n.LastModified
}

// same tells whether an answer is about the same file. Where a server says
// nothing about versions the length must do: hashes and check sums come later.
func (n notes) same(o notes) bool {
	if n.validator() == "" {
		return o.validator() == "" && n.Total >= 0 && n.Total == o.Total
	}
	return n.validator() == o.validator() && (n.Total == o.Total || n.Total < 0 || o.Total < 0)
}

// Open begins to receive a file, or goes on with what the part file holds. It
// returns when the server has answered.
func (c *Client) Open(ctx context.Context, r Request) (*Stream, error) {
	part, err := os.OpenFile(r.Part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the part file: %w", err)
	}
	s := &Stream{c: c, r: r, http: c.client(r.AllowHTTP), part: part, patience: c.patience()}
	if err = s.recall(); err == nil {
		if s.complete = r.Immutable && s.notes.Total > 0 && s.have == s.notes.Total; s.complete {
			return s, nil
		}
		err = s.connect(ctx)
	}
	switch {
	case err == nil:
		return s, nil
	case s.have == 0:
		return nil, errors.Join(err, s.Discard())
	}
	return nil, errors.Join(err, s.Close())
}

// recall finds out what the part file is worth.
func (s *Stream) recall() error {
	s.notes = notes{Name: s.r.Name, Total: -1}
	data, err := os.ReadFile(s.notesPath())
	var n notes
	if err == nil && json.Unmarshal(data, &n) == nil && n.Name == s.r.Name && (n.validator() != "" || s.r.Immutable) && !s.r.WithoutRange {
		info, err := s.part.Stat()
		if err != nil {
			return err
		}
		if n.Total < 0 || info.Size() <= n.Total {
			s.notes, s.have = n, info.Size()
			return nil
		}
	}
	return s.part.Truncate(0)
}

func (s *Stream) notesPath() string { return s.r.Part + ".json" }

// Size is the length of the file, or -1 while the server has not told it.
func (s *Stream) Size() int64 { return s.notes.Total }

// Have is how much of the file is there already.
func (s *Stream) Have() int64 { return s.have }

// Validators identify the file's version on the server; both may be "".
func (s *Stream) Validators() (etag, lastModified string) { return s.notes.ETag, s.notes.LastModified }

// File gives access to what was received; to all of it after Read has returned io.EOF.
func (s *Stream) File() (io.ReaderAt, int64, error) { return s.part, s.have, nil }

// Close ends the connection and keeps the part file.
func (s *Stream) Close() error {
	s.disconnect()
	return s.part.Close()
}

// Discard is Close for a file whose part is not needed any more.
func (s *Stream) Discard() error {
	return errors.Join(s.Close(), Discard(s.r.Part))
}

// Discard removes a part file, if there is one.
func Discard(part string) error {
	var all error
	for _, path := range []string{part, part + ".json"} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// Reader reads the stream until ctx ends.
func (s *Stream) Reader(ctx context.Context) io.Reader {
	return readerFunc(func(p []byte) (int, error) { return s.read(ctx, p) })
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (s *Stream) read(ctx context.Context, p []byte) (int, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		if s.pos < s.have {
			n, err := s.part.ReadAt(p[:min(int64(len(p)), s.have-s.pos)], s.pos)
			s.pos += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		}
		if s.complete {
			return 0, io.EOF
		}
		if s.conn == nil {
			if err := s.connect(ctx); err != nil {
				return 0, err
			}
			continue
		}
		n, err := s.receive(ctx, p)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// receive reads from the connection. It returns nothing at all when the
// connection has ended, whether the file is complete or not.
func (s *Stream) receive(ctx context.Context, p []byte) (int, error) {
	n, err := s.conn.read(p)
	if n > 0 {
		if _, err := s.part.WriteAt(p[:n], s.have); err != nil {
			return 0, fmt.Errorf("keeping what was received: %w", err)
		}
		s.have += int64(n)
		s.pos = s.have
		if s.have-s.since >= enoughProgress {
			s.since = s.have
			s.patience.progress()
		}
		s.told()
		return n, nil
	}
	if err == nil {
		return 0, nil
	}
	s.disconnect()
	if errors.Is(err, io.EOF) {
		if s.notes.Total < 0 || s.have == s.notes.Total {
			s.complete = true
			return 0, nil
		}
		err = ErrCut
	}
	s.since = s.have
	return 0, s.patience.after(ctx, s.lost(err))
}

// lost describes the end of a connection.
func (s *Stream) lost(err error) error {
	if s.notes.Total < 0 {
		return fmt.Errorf("%w: after %d bytes", err, s.have)
	}
	return fmt.Errorf("%w: after %d of %d bytes", err, s.have, s.notes.Total)
}

func (s *Stream) told() {
	if s.c.Received != nil {
		s.c.Received(s.have, s.notes.Total)
	}
}

func (s *Stream) disconnect() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

// connect asks for what is missing, until it is answered or hopeless.
func (s *Stream) connect(ctx context.Context) error {
	for {
		err := s.ask(ctx)
		if err == nil {
			s.told()
			return nil
		}
		var status *StatusError
		expired := s.r.Signed && errors.As(err, &status) && (status.Status == http.StatusForbidden || status.Status == http.StatusUnauthorized)
		if permanent(err) && !expired {
			return err
		}
		if err := s.patience.after(ctx, err); err != nil {
			return err
		}
	}
}

// ask makes one request and takes its answer.
func (s *Stream) ask(ctx context.Context) error {
	at, err := s.r.Locate(ctx)
	if err != nil {
		return err
	}
	header := at.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if v := s.notes.validator(); s.have > 0 && (v != "" || s.r.Immutable) && !s.r.WithoutRange {
		span := "bytes=" + strconv.FormatInt(s.have, 10) + "-"
		if v == "" && s.notes.Total > 0 { // some registries want to be told the end
			span += strconv.FormatInt(s.notes.Total-1, 10)
		}
		header.Set("Range", span)
		if v != "" {
			header.Set("If-Range", v)
		}
	}
	conn, err := dial(ctx, s.http, at.URL, header, s.c.stall())
	if err != nil {
		return err
	}
	if err := s.take(conn); err != nil {
		conn.close()
		return err
	}
	return nil
}

// take decides what an answer means for what we have.
func (s *Stream) take(conn *connection) error {
	resp := conn.resp
	now := notes{Name: s.r.Name, ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified"), Total: -1}
	switch resp.StatusCode {
	case http.StatusOK:
		now.Total = resp.ContentLength
		return s.takeWhole(conn, now)
	case http.StatusPartialContent:
		first, total, ok := contentRange(resp.Header.Get("Content-Range"))
		now.Total = total
		if !ok || first != s.have {
			s.r.WithoutRange = true // what we have stays good; the next answer is skipped up to there
			return fmt.Errorf("%w: asked for what follows byte %d, the server sent %q", ErrCut, s.have, resp.Header.Get("Content-Range"))
		}
		if now.validator() != "" && !s.notes.same(now) || total >= 0 && s.notes.Total >= 0 && total != s.notes.Total {
			return s.startOver()
		}
		s.conn = conn
		return nil
	case http.StatusRequestedRangeNotSatisfiable:
		_, total, ok := contentRange(resp.Header.Get("Content-Range"))
		switch {
		case ok && total == s.have && (s.notes.Total < 0 || s.notes.Total == total):
			s.complete = true
			conn.close()
			return nil
		case ok && total == s.have:
			return fmt.Errorf("%w: first %d bytes, now %d", ErrLength, s.notes.Total, total)
		}
		return s.startOver()
	}
	return statusError(conn)
}

// takeWhole takes an answer that begins at the beginning.
func (s *Stream) takeWhole(conn *connection, now notes) error {
	if s.have > 0 && s.notes.same(now) {
		// The server knows no ranges. What we have is received again, but not
		// read again.
		if err := conn.skip(s.have); err != nil {
			return s.lost(err)
		}
		s.conn = conn
		return nil
	}
	if s.pos > 0 {
		return s.startOver()
	}
	if err := conn.recognise(); err != nil {
		return err
	}
	if err := s.part.Truncate(0); err != nil {
		return fmt.Errorf("keeping what is received: %w", err)
	}
	s.have, s.since, s.notes = 0, 0, now
	data, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("encoding the notes: %w", err)
	}
	if err := os.WriteFile(s.notesPath(), data, 0o600); err != nil {
		return fmt.Errorf("keeping what is received: %w", err)
	}
	s.conn = conn
	return nil
}

// startOver forgets what we have. When nothing of it was read, the next try
// begins at the beginning; otherwise the reader must.
func (s *Stream) startOver() error {
	s.have, s.since = 0, 0
	if err := s.part.Truncate(0); err != nil {
		return fmt.Errorf("keeping what is received: %w", err)
	}
	s.notes = notes{Name: s.r.Name, Total: -1}
	if s.pos > 0 {
		return ErrChanged
	}
	return errOutdated
}

// contentRange reads "bytes FIRST-LAST/TOTAL" and "bytes */TOTAL"; the total
// is -1 when it is a star.
func contentRange(text string) (first, total int64, ok bool) {
	span, size, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	if !ok || !strings.HasPrefix(text, "bytes ") {
		return 0, 0, false
	}
	total = -1
	if size != "*" {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, false
		}
		total = n
	}
	if span == "*" {
		return 0, total, true
	}
	from, _, ok := strings.Cut(span, "-")
	first, err := strconv.ParseInt(from, 10, 64)
	return first, total, ok && err == nil && first >= 0
}

func statusError(conn *connection) error {
	e := &StatusError{Status: conn.resp.StatusCode}
	if host := conn.resp.Request.URL.Host; host != conn.asked {
		e.Host = host
	}
	e.Wait = RetryAfter(conn.resp.Header.Get("Retry-After"), time.Now())
	return e
}

// RetryAfter reads how long a server wants to be left alone: a number of seconds
// or a date (RFC 9110, section 10.2.3).
func RetryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second // 31 bits
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
