package fetch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// connection is one answer of a server, with a watchdog that runs while we
// wait for it, and not while our reader is slow.
type connection struct {
	resp  *http.Response
	body  *bufio.Reader
	asked string // host of the request, before redirects

	ctx    context.Context // its cause says why the body failed
	cancel context.CancelCauseFunc
	dog    *time.Timer
	stall  time.Duration
}

// errClosed ends the request of a connection that is not needed any more.
var errClosed = errors.New("closed")

// dial makes a request and waits for the header of its answer.
func dial(ctx context.Context, client *http.Client, address string, header http.Header, stall time.Duration) (*connection, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		cancel(errClosed)
		return nil, errors.New("the address can't be read as a URL")
	}
	req.Header = header
	// The bytes of the file, and not ones packed on the way.
	req.Header.Set("Accept-Encoding", "identity")
	c := &connection{asked: req.URL.Host, ctx: ctx, cancel: cancel, stall: stall}
	c.dog = time.AfterFunc(stall, func() { cancel(fmt.Errorf("%w (%s)", ErrStalled, stall)) })
	resp, err := client.Do(req) //nolint:bodyclose // close does
	c.dog.Stop()
	if err != nil {
		err = c.cause(err)
		cancel(errClosed)
		return nil, err
	}
	c.resp, c.body = resp, bufio.NewReaderSize(resp.Body, 64<<10)
	return c, nil
}

// cause replaces an error of the network by the reason for which we ended the
// connection, if we did.
func (c *connection) cause(err error) error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	return plainError(err)
}

func (c *connection) close() {
	c.dog.Stop()
	c.cancel(errClosed)
	_ = c.resp.Body.Close() // it was only read
}

// watch runs do under the watchdog.
func (c *connection) watch(do func() error) error {
	c.dog.Reset(c.stall)
	err := do()
	c.dog.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		return c.cause(err)
	}
	return err
}

func (c *connection) read(p []byte) (n int, err error) {
	err = c.watch(func() error {
		n, err = c.body.Read(p)
		return err
	})
	return n, err
}

// skip reads n bytes that are not wanted.
func (c *connection) skip(n int64) error {
	for n > 0 {
		err := c.watch(func() error {
			step, err := io.CopyN(io.Discard, c.body, min(n, 64<<10))
			n -= step
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

var titlePattern = regexp.MustCompile(`(?is)<title[^>]*>\s*(.*?)\s*</title>`)

// recognise refuses a text, most of all the web page with which a server says
// that it does not have the file, or wants a login.
func (c *connection) recognise() error {
	var head []byte
	err := c.watch(func() (err error) {
		head, err = c.body.Peek(4 << 10)
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil
		}
		return err
	})
	if err != nil && !errors.Is(err, io.EOF) {
		if len(head) == 0 || errors.Is(err, ErrStalled) {
			return err
		}
		return nil // what did arrive is read, and then the error again
	}
	kind := http.DetectContentType(head)
	if !strings.HasPrefix(kind, "text/") || len(head) == 0 {
		return nil
	}
	if m := titlePattern.FindSubmatch(head); m != nil {
		return fmt.Errorf("%w: a web page with the title %q", ErrNotFile, shorten(m[1]))
	}
	if strings.HasPrefix(kind, "text/html") {
		return fmt.Errorf("%w: a web page", ErrNotFile)
	}
	return fmt.Errorf("%w: a text that begins with %q", ErrNotFile, shorten(head))
}

// shorten makes one line of 80 characters at most.
func shorten(text []byte) string {
	line := string(bytes.Join(bytes.Fields(text), []byte(" ")))
	if r := []rune(line); len(r) > 80 {
		return string(r[:80]) + "..."
	}
	return line
}

// Get receives a small text, such as a list of hashes or a signature. A text
// longer than limit is an error. A web page is no text.
func (c *Client) Get(ctx context.Context, address string, limit int64) ([]byte, error) {
	client := c.client(false)
	var text []byte
	err := c.Retry(ctx, func() (err error) {
		text, err = getOnce(ctx, client, address, limit, c.stall())
		return err
	})
	return text, err // nil with an error
}

// Retry does something again, with the waits and notes of a fetch, until it
// succeeds or fails for good. An error that is a backoff.Permanent, or a
// *StatusError that will not change, is for good.
func (c *Client) Retry(ctx context.Context, do func() error) error {
	for patience := c.patience(); ; {
		err := do()
		if err == nil || permanent(err) {
			return err
		}
		if err := patience.after(ctx, err); err != nil {
			return err
		}
	}
}

func getOnce(ctx context.Context, client *http.Client, address string, limit int64, stall time.Duration) ([]byte, error) {
	conn, err := dial(ctx, client, address, http.Header{}, stall)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	if conn.resp.StatusCode != http.StatusOK {
		return nil, statusError(conn)
	}
	var text []byte
	err = conn.watch(func() (err error) {
		text, err = io.ReadAll(io.LimitReader(conn.body, limit+1))
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case int64(len(text)) > limit:
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrNotFile, limit)
	case strings.HasPrefix(http.DetectContentType(text), "text/html"):
		return nil, fmt.Errorf("%w: a web page", ErrNotFile)
	}
	return text, nil
}
