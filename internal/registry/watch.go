package registry

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/org/hurd-qemu-action/internal/image/fetch"
)

// watched is a context that ends when touch was not called for the stall time,
// or for the time that the last call has given.
func watched(ctx context.Context, stall time.Duration) (_ context.Context, touch func(next time.Duration), stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var limit atomic.Int64
	limit.Store(int64(stall))
	dog := time.AfterFunc(stall, func() { cancel(fmt.Errorf("%w (%s)", fetch.ErrStalled, time.Duration(limit.Load()))) })
	touch = func(next time.Duration) {
		limit.Store(int64(next))
		dog.Reset(next)
	}
	return ctx, touch, func() {
		dog.Stop()
		cancel(nil)
	}
}

// moving reads what is sent, and tells of it.
type moving struct {
	r     io.Reader
	moved func(n int)
}

func (m *moving) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.moved(n)
	return n, err
}

// bounded is a reader that fails beyond a limit; 0 for none.
type bounded struct {
	r           io.Reader
	left, limit int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.limit > 0 && b.left < 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrSize, b.limit)
	}
	return n, err
}
