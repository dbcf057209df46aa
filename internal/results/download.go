package results

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"

	"golang.org/x/sync/errgroup"
)

// Download copies the bytes of an entry to dst, in ranges that are received at
// the same time, and returns its size. An entry larger than limit is
// ErrTooLarge, before anything of it is received if its size is known; a limit
// of 0 is none. dst is never cut: with an error parts of it may have been
// written, and what was in it beyond the size stays.
//
// A range that is cut goes on where it ended; an address that has expired is
// asked for again, unless the one before was of no use either. A peer that knows no ranges, or whose ranges are not
// those that were asked for, sends all in one piece. Memory use does not
// depend on the size. The service gives no hash: the caller has to know what
// it expects.
func (c *Cache) Download(ctx context.Context, hit *Hit, dst io.WriterAt, limit int64, progress Progress) (int64, error) {
	d := &download{cache: c, hit: hit, dst: dst, limit: limit, meter: meter{progress: progress}}
	size, err := d.ranges(ctx)
	if errors.Is(err, ErrRanges) && context.Cause(ctx) == nil {
		c.Service.notify("receiving the cache entry in one piece: %v", err)
		size, err = d.whole(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("downloading %q from the cache: %w", hit.Key, err)
	}
	return size, nil
}

// rangeSize is how much one request asks for.
const rangeSize = 8 << 20

var errCut = errors.New("the connection ended too early")

type download struct {
	cache *Cache
	hit   *Hit
	dst   io.WriterAt
	limit int64
	meter meter

	size int64  // of the whole entry; set by the first range
	etag string // likewise
}

// ranges asks for the first range, which tells the size, and then for the rest.
func (d *download) ranges(ctx context.Context) (int64, error) {
	if err := d.piece(ctx, 0); err != nil {
		return 0, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for start := int64(rangeSize); start < d.size && groupCtx.Err() == nil; start += rangeSize {
		group.Go(func() error { return d.piece(groupCtx, start) })
	}
	err := group.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return 0, cause
	}
	return d.size, err
}

// enough is how much has to arrive for a failure to count as the first one.
const enough = 64 << 10

// piece receives the range that begins at start.
func (d *download) piece(ctx context.Context, start int64) error {
	return d.part(ctx, start, start+rangeSize)
}

// part receives the bytes from start to end, or to that of the entry. What
// arrived before a failure is kept, and a failure after progress is the first
// again.
func (d *download) part(ctx context.Context, start, end int64) error {
	at := start
	buffer := make([]byte, min(128<<10, end-start))
	for {
		before := at
		err := d.cache.Service.retry(ctx, "downloading", func(ctx context.Context, touch func()) error {
			err := d.get(ctx, &at, end, buffer, touch)
			if err != nil && at >= before+enough && passing(err) {
				return nil // the outer loop goes on
			}
			return err
		})
		if err != nil {
			return err
		}
		if at >= min(end, d.size) {
			return nil
		}
	}
}

// get asks for the bytes from at to end once. It moves at on as they arrive.
func (d *download) get(ctx context.Context, at *int64, end int64, buffer []byte, touch func()) error {
	if d.size > 0 || *at > 0 {
		end = min(end, d.size)
	}
	resp, err := d.ask(ctx, fmt.Sprintf("bytes=%d-%d", *at, end-1))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	touch()
	if resp.StatusCode == http.StatusOK {
		return lasting{ErrRanges}
	}
	got, err := contentRange(resp)
	if err != nil {
		return err
	}
	if err := d.fits(got, *at, end, resp.Header.Get("ETag")); err != nil {
		return err
	}
	return d.receive(resp.Body, at, got.end, buffer, touch)
}

// fits compares the range that a server sends with what was asked for, and
// the entry with the one that the first range was of.
func (d *download) fits(got span, start, end int64, etag string) error {
	if got.start != start || got.end > end || got.end > got.total || got.end <= got.start {
		return lasting{fmt.Errorf("%w: bytes %d to %d were asked for, %d to %d of %d came", ErrRanges, start, end-1, got.start, got.end-1, got.total)}
	}
	if d.size == 0 {
		if err := d.allowed(got.total); err != nil {
			return err
		}
		d.size, d.etag = got.total, etag
		d.meter.reset(got.total)
	}
	if got.total != d.size || etag != d.etag {
		return lasting{ErrChanged}
	}
	return nil
}

func (d *download) allowed(size int64) error {
	if d.limit > 0 && size > d.limit {
		return lasting{fmt.Errorf("%w: it has %d bytes, %d are allowed", ErrTooLarge, size, d.limit)}
	}
	return nil
}

// receive copies a body up to the end of its range, and not further.
func (d *download) receive(body io.Reader, at *int64, end int64, buffer []byte, touch func()) error {
	for *at < end {
		n, err := body.Read(buffer[:min(int64(len(buffer)), end-*at)])
		if n > 0 {
			touch()
			if _, err := d.dst.WriteAt(buffer[:n], *at); err != nil {
				return lasting{fmt.Errorf("writing what was received: %w", err)}
			}
			*at += int64(n)
			d.meter.add(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF) && *at < end:
			return errCut
		case err != nil && *at < end:
			return fmt.Errorf("downloading: %w", err)
		}
	}
	return nil
}

// ask makes one request to the signed address, and a second one to a new
// address if the first is refused. An empty span asks for all.
func (d *download) ask(ctx context.Context, span string) (*http.Response, error) {
	address := d.hit.current()
	resp, err := d.request(ctx, address, span)
	if expired(err) {
		var renewErr error
		if address, renewErr = d.cache.renew(ctx, d.hit, address); renewErr != nil {
			return nil, lasting{fmt.Errorf("%w; %w", err, renewErr)}
		}
		resp, err = d.request(ctx, address, span)
	}
	if err == nil {
		d.hit.works(address)
	}
	return resp, err
}

func (d *download) request(ctx context.Context, address, span string) (*http.Response, error) {
	const what = "downloading"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, lasting{errors.New("the service gave no address that can be downloaded from")}
	}
	req.Header.Set("Accept-Encoding", "identity")
	if span != "" {
		req.Header.Set("Range", span)
	}
	resp, err := d.cache.Service.blobs().Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, plain(err))
	}
	if resp.StatusCode != http.StatusOK && (resp.StatusCode != http.StatusPartialContent || span == "") {
		defer func() { _ = resp.Body.Close() }() // it was only read
		if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			return nil, lasting{ErrRanges}
		}
		return nil, d.cache.Service.refusal(what, resp, d.cache.Service.now())
	}
	return resp, nil
}

// span is a part of a file, without end.
type span struct{ start, end, total int64 }

var contentRangePattern = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18})$`)

// contentRange reads the header of RFC 9110, section 14.4. A size that the
// server does not know is of no use to us.
func contentRange(resp *http.Response) (span, error) {
	m := contentRangePattern.FindStringSubmatch(resp.Header.Get("Content-Range"))
	if m == nil {
		return span{}, lasting{fmt.Errorf("%w: it does not say which it sends", ErrRanges)}
	}
	var n [3]int64
	for i := range n {
		n[i], _ = strconv.ParseInt(m[i+1], 10, 64) // digits only, and few
	}
	return span{n[0], n[1] + 1, n[2]}, nil
}

// whole receives all in one piece, again from the start after each failure.
func (d *download) whole(ctx context.Context) (int64, error) {
	var size int64
	buffer := make([]byte, 128<<10)
	err := d.cache.Service.retry(ctx, "downloading", func(ctx context.Context, touch func()) error {
		resp, err := d.ask(ctx, "")
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }() // it was only read
		touch()
		size, err = d.stream(resp, buffer, touch)
		return err
	})
	return size, err
}

// stream copies a body whose length may not be known.
func (d *download) stream(resp *http.Response, buffer []byte, touch func()) (int64, error) {
	if err := d.allowed(resp.ContentLength); err != nil {
		return 0, err
	}
	d.meter.reset(resp.ContentLength)
	var at int64
	for {
		n, err := resp.Body.Read(buffer)
		if n > 0 {
			touch()
			if err := d.allowed(at + int64(n)); err != nil {
				return 0, err
			}
			if _, err := d.dst.WriteAt(buffer[:n], at); err != nil {
				return 0, lasting{fmt.Errorf("writing what was received: %w", err)}
			}
			at += int64(n)
			d.meter.add(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF):
			return at, nil
		case err != nil:
			return 0, fmt.Errorf("downloading: %w", err)
		}
	}
}
