package results

import (
	"context"
	"fmt"
	"io"
)

// Blob is an entry of the cache that is read in parts, for as long as it takes:
// its address is asked for again whenever it has expired. Its methods are safe
// for use by several goroutines.
type Blob struct {
	cache *Cache
	hit   *Hit
	size  int64
	etag  string
}

// Open begins to read an entry by parts: it reads the beginning into p, and
// tells how much of it there was. An entry larger than limit is ErrTooLarge; a
// limit of 0 is none. A peer that gives no ranges is ErrRanges.
func (c *Cache) Open(ctx context.Context, hit *Hit, limit int64, p []byte) (*Blob, int, error) {
	d := &download{cache: c, hit: hit, dst: part{p, 0}, limit: limit}
	if err := d.part(ctx, 0, int64(len(p))); err != nil {
		return nil, 0, fmt.Errorf("reading %q from the cache: %w", hit.Key, err)
	}
	return &Blob{cache: c, hit: hit, size: d.size, etag: d.etag}, int(min(int64(len(p)), d.size)), nil
}

// Size is that of the entry.
func (b *Blob) Size() int64 { return b.size }

// Key is that of the entry.
func (b *Blob) Key() string { return b.hit.Key }

// ReadAt fills p with the bytes from offset on. What fails for a moment is tried
// again, as in Download. The service gives no hash: the caller has to know what
// it expects. ErrChanged says that the entry is not the one any more.
func (b *Blob) ReadAt(ctx context.Context, p []byte, offset int64) error {
	end := offset + int64(len(p))
	if offset < 0 || end > b.size {
		return fmt.Errorf("reading %q from the cache: %w", b.hit.Key, io.ErrUnexpectedEOF)
	}
	if len(p) == 0 {
		return nil
	}
	d := &download{cache: b.cache, hit: b.hit, dst: part{p, offset}, size: b.size, etag: b.etag}
	if err := d.part(ctx, offset, end); err != nil {
		return fmt.Errorf("reading %q from the cache: %w", b.hit.Key, err)
	}
	return nil
}

// part is a part of an entry in memory.
type part struct {
	p      []byte
	offset int64
}

func (m part) WriteAt(p []byte, offset int64) (int, error) {
	n := copy(m.p[offset-m.offset:], p)
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
